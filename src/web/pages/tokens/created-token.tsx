import { Button, Group, Loader } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import type { TokenCreated } from '../../../tokens/schema.ts';
import { tokensQuery } from '../../api/tokens.ts';
import { CopyButton } from '../../components/copy-button.tsx';
import { StatusBadge } from '../../components/status-badge.tsx';
import { tokensTexts } from '../../texts/tokens.ts';
import { Snippets } from './snippets-panel.tsx';
import classes from './tokens.module.css';

const texts = tokensTexts.created;
const POLL_INTERVAL_MS = 2_000;

/** Shows a new token, which the server never shows again, and the first request that uses it. */
export function CreatedToken({
  created,
  onClose,
}: {
  created: TokenCreated;
  onClose: () => void;
}): ReactNode {
  return (
    <>
      <p className={classes['once']}>{texts.once}</p>
      <div className={classes['token']}>
        <code>{created.token}</code>
        <CopyButton value={created.token} label={texts.copy} />
      </div>
      <h2 className={classes['use']}>{texts.use}</h2>
      <Snippets token={created.token} />
      <FirstRequest tokenId={created.id} />
      <Group justify="flex-end" mt="md">
        <Button onClick={onClose}>{texts.close}</Button>
      </Group>
    </>
  );
}

/** Reads the list until the token was used. The browser stops that while the tab is hidden. */
function FirstRequest({ tokenId }: { tokenId: string }): ReactNode {
  const { data } = useQuery({
    ...tokensQuery,
    refetchInterval: ({ state }) => (isUsed(state.data, tokenId) ? false : POLL_INTERVAL_MS),
  });
  const used = data?.find(({ id, last_used_at: usedAt }) => id === tokenId && usedAt !== null);
  return (
    <div role="status" className={classes['firstRequest']}>
      {used === undefined ? (
        <>
          <Loader size={16} />
          <span>
            {texts.waiting} <small>{texts.waitingHint}</small>
          </span>
        </>
      ) : (
        <StatusBadge tone={(used.last_status ?? 0) < 400 ? 'good' : 'warning'}>
          {`${texts.arrived}: ${tokensTexts.lastStatus(used.last_client ?? tokensTexts.unknownClient, used.last_status)}`}
        </StatusBadge>
      )}
    </div>
  );
}

function isUsed(
  tokens: readonly { id: string; last_used_at: string | null }[] | undefined,
  id: string,
): boolean {
  return tokens?.some((token) => token.id === id && token.last_used_at !== null) ?? false;
}
