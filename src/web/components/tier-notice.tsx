import type { ReactNode } from 'react';
import { BYOK_TIER } from '../../config/tiers.ts';
import { useMe } from '../api/me.ts';
import { shellTexts } from '../texts/shell.ts';
import { TIER_NAMES } from '../texts/tiers.ts';
import classes from './states.module.css';

/** Says what users below Starter cannot do on a page, and what still works. Nothing for the others. */
export function TierNotice({
  missing,
}: {
  /** E.g. "Adding and testing keys". */ missing: string;
}): ReactNode {
  const { tier, features } = useMe();
  if (features.byok) return null;
  return (
    <p className={classes['notice']}>
      {shellTexts.tierNotice(missing, TIER_NAMES[tier], TIER_NAMES[BYOK_TIER])}
    </p>
  );
}
