import { Button } from '@mantine/core';
import { useState, type ReactNode } from 'react';
import type { TokenView } from '../../../tokens/schema.ts';
import { useRevokeToken } from '../../api/tokens.ts';
import { ConfirmDialog } from '../../components/confirm-dialog.tsx';
import { RelativeTime } from '../../components/relative-time.tsx';
import { StatusBadge } from '../../components/status-badge.tsx';
import { tokensTexts as texts } from '../../texts/tokens.ts';
import classes from './tokens.module.css';

/** All tokens, the newest first. On a phone each row is a card (tokens.module.css). */
export function TokenTable({ tokens }: { tokens: readonly TokenView[] }): ReactNode {
  const [revoked, setRevoked] = useState<TokenView>();
  const revoke = useRevokeToken();
  const { columns } = texts;
  return (
    <>
      <table className={classes['table']}>
        <thead>
          <tr>
            <th scope="col">{columns.name}</th>
            <th scope="col">{columns.allowed}</th>
            <th scope="col">{columns.limits}</th>
            <th scope="col">{columns.lastUsed}</th>
            <th scope="col">{columns.expires}</th>
            <td />
          </tr>
        </thead>
        <tbody>
          {tokens.map((token) => (
            <tr key={token.id}>
              <th scope="row">
                {token.name}
                <code>{token.prefix}…</code>
              </th>
              <td data-label={columns.allowed}>
                {token.scopes.map((scope) => texts.scopes[scope].label).join(', ')}
              </td>
              <td data-label={columns.limits}>{describeLimits(token)}</td>
              <td data-label={columns.lastUsed}>
                <LastUse token={token} />
              </td>
              <td data-label={columns.expires}>
                <Expiry expiresAt={token.expires_at} />
              </td>
              <td>
                <Button
                  variant="default"
                  size="xs"
                  aria-label={texts.revokeOf(token.name)}
                  onClick={() => {
                    setRevoked(token);
                  }}
                >
                  {texts.revoke}
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <ConfirmDialog
        opened={revoked !== undefined}
        title={texts.revokeTitle}
        confirmLabel={texts.revoke}
        onConfirm={() => revoke.mutateAsync(revoked?.id ?? '')}
        onClose={() => {
          setRevoked(undefined);
        }}
      >
        {texts.revokeText(revoked?.name ?? '')}
      </ConfirmDialog>
    </>
  );
}

function describeLimits({ models, key_ids: keyIds }: TokenView): string {
  const parts = [
    ...(models === null ? [] : [texts.models(models)]),
    ...(keyIds === null ? [] : [texts.keys(keyIds.length)]),
  ];
  return parts.length === 0 ? texts.anyKey : parts.join('; ');
}

function LastUse({ token }: { token: TokenView }): ReactNode {
  if (token.last_used_at === null) return texts.notUsed;
  return (
    <>
      <RelativeTime time={token.last_used_at} />
      <small>{texts.lastStatus(token.last_client ?? texts.unknownClient, token.last_status)}</small>
    </>
  );
}

function Expiry({ expiresAt }: { expiresAt: string | null }): ReactNode {
  const [nowMs] = useState(() => Date.now());
  if (expiresAt === null) return texts.never;
  if (Date.parse(expiresAt) <= nowMs) return <StatusBadge tone="bad">{texts.expired}</StatusBadge>;
  return <RelativeTime time={expiresAt} />;
}
