import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import type { ProviderView } from '../../../keys/schema.ts';
import { keysTexts as texts } from '../../texts/keys.ts';
import { routeQuery } from '../../api/keys.ts';
import classes from './keys.module.css';

/** Who would pay for a request to this provider now, by the server's own decision. Nothing for tools and git. */
export function WhoPays({ provider }: { provider: ProviderView }): ReactNode {
  const model = provider.models[0] ?? 'default';
  const { data } = useQuery({ ...routeQuery(provider.id, model), enabled: provider.kind === 'llm' });
  return <p className={classes['pays']}>{data === undefined ? ' ' : describe(provider, data)}</p>;
}

interface Decision {
  provider: string | null;
  key_scope: string | null;
  label: string | null;
  reason: string | null;
}

function describe(
  { id, name }: ProviderView,
  { provider, key_scope: scope, label, reason }: Decision,
): string {
  if (scope === 'personal' && provider === id) return texts.paysPersonal(name, label);
  if (scope !== 'system') return texts.paysNothing;
  const why = reason === null ? undefined : texts.reasons[reason];
  return why === undefined ? texts.paysSystem : `${texts.paysSystem}: ${why}`;
}
