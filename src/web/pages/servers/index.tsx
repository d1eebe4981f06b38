import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';
import type { ServerView } from '../../../servers/schema.ts';
import { useMe } from '../../api/me.ts';
import { serversQuery } from '../../api/servers.ts';
import { EmptyState } from '../../components/empty-state.tsx';
import { ErrorState } from '../../components/error-state.tsx';
import { LinkButton } from '../../components/link-button.tsx';
import { Loading } from '../../components/loading.tsx';
import { PageHeader } from '../../components/page-header.tsx';
import { RelativeTime } from '../../components/relative-time.tsx';
import { StatusBadge } from '../../components/status-badge.tsx';
import { TierNotice } from '../../components/tier-notice.tsx';
import { serverStatusTexts, serversTexts as texts, serverTypeTexts } from '../../texts/servers.ts';
import { shellTexts } from '../../texts/shell.ts';
import classes from './servers.module.css';

export function ServersPage(): ReactNode {
  const { features } = useMe();
  const servers = useQuery(serversQuery);
  const add = features.execution_servers ? <LinkButton to="/servers/new">{texts.add}</LinkButton> : undefined;
  const isEmpty = servers.data?.length === 0;
  return (
    <>
      <PageHeader
        title={shellTexts.pages.servers}
        description={texts.description}
        actions={isEmpty ? undefined : add}
      />
      <TierNotice missing={texts.tierMissing} />
      {servers.data === undefined ? (
        servers.isError ? (
          <ErrorState error={servers.error} onRetry={() => void servers.refetch()} />
        ) : (
          <Loading />
        )
      ) : isEmpty ? (
        <EmptyState title={texts.emptyTitle} action={add}>
          {texts.emptyText}
        </EmptyState>
      ) : (
        <ul className={classes['servers']}>
          {servers.data.map((server) => (
            <ServerRow key={server.id} server={server} />
          ))}
        </ul>
      )}
    </>
  );
}

function ServerRow({ server }: { server: ServerView }): ReactNode {
  const { label, tone } = serverStatusTexts[server.test_status];
  const time = (value: string | null) => (value === null ? texts.never : <RelativeTime time={value} />);
  return (
    <li className={classes['server']}>
      <div>
        <h2>
          <Link to="/servers/$id" params={{ id: server.id }}>
            {server.name}
          </Link>
        </h2>
        <p>
          {serverTypeTexts[server.server_type].label}
          {server.is_default && ` · ${texts.isDefault}`}
          {!server.is_active && ` · ${texts.isInactive}`}
        </p>
      </div>
      <StatusBadge tone={tone}>{label}</StatusBadge>
      <dl>
        <div>
          <dt>{texts.lastTested}</dt>
          <dd>{time(server.last_tested_at)}</dd>
        </div>
        <div>
          <dt>{texts.lastUsed}</dt>
          <dd>{time(server.last_used_at)}</dd>
        </div>
      </dl>
    </li>
  );
}
