import { Button, Group, Switch } from '@mantine/core';
import { notifications } from '@mantine/notifications';
import { useQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { useEffect, useRef, useState, type ReactNode } from 'react';
import type { ServerView } from '../../../servers/schema.ts';
import { useMe } from '../../api/me.ts';
import {
  serverQuery,
  useDeleteServer,
  useTestServer,
  useUpdateServer,
  type ServerChange,
} from '../../api/servers.ts';
import { ConfirmDialog } from '../../components/confirm-dialog.tsx';
import { ErrorState } from '../../components/error-state.tsx';
import { LinkButton } from '../../components/link-button.tsx';
import { Loading } from '../../components/loading.tsx';
import { PageHeader } from '../../components/page-header.tsx';
import { StatusBadge } from '../../components/status-badge.tsx';
import { serverStatusTexts, serversTexts as texts, serverTypeTexts } from '../../texts/servers.ts';
import { shellTexts } from '../../texts/shell.ts';
import { HostKeyNotice } from './host-key-notice.tsx';
import { ServerForm } from './server-form.tsx';
import { TestStages } from './test-stages.tsx';
import classes from './servers.module.css';

const route = getRouteApi('/servers/$id');

/** One server: its state, its last test, and what can be done with it. */
export function ServerPage(): ReactNode {
  const { id } = route.useParams();
  const server = useQuery(serverQuery(id));
  if (server.data === undefined)
    return (
      <>
        <PageHeader title={shellTexts.pages.servers} />
        {server.isError ? (
          <ErrorState error={server.error} onRetry={() => void server.refetch()} />
        ) : (
          <Loading lines={8} />
        )}
      </>
    );
  return <Server server={server.data} />;
}

function Server({ server }: { server: ServerView }): ReactNode {
  const { features } = useMe();
  const [isEditing, setEditing] = useState(false);
  const test = useTestServer(server.id);
  useTestOnArrival(test.mutate);
  const stopEditing = () => {
    setEditing(false);
  };
  const { label, tone } = serverStatusTexts[server.test_status];
  return (
    <>
      <PageHeader
        title={server.name}
        description={serverTypeTexts[server.server_type].label}
        actions={
          features.execution_servers && (
            <Actions
              server={server}
              test={test}
              onEdit={() => {
                setEditing(true);
              }}
            />
          )
        }
      />
      <div className={classes['state']} role="status">
        {test.isPending ? (
          <StatusBadge tone="busy">{texts.testing}</StatusBadge>
        ) : (
          <StatusBadge tone={tone}>{label}</StatusBadge>
        )}
        {server.is_default && <StatusBadge tone="neutral">{texts.isDefault}</StatusBadge>}
        {!server.is_active && <StatusBadge tone="warning">{texts.isInactive}</StatusBadge>}
      </div>
      {test.isError && <ErrorState error={test.error} />}
      {isEditing ? (
        <ServerForm server={server} onDone={stopEditing} onCancel={stopEditing} />
      ) : (
        <>
          <HostKeyNotice
            server={server}
            onConfirmed={() => {
              test.mutate();
            }}
          />
          <TestStages details={test.isPending ? null : server.test_details} />
          <Settings server={server} />
        </>
      )}
    </>
  );
}

/** Tests a server that was just added. The address loses the request, so that a reload does not test again. */
function useTestOnArrival(runTest: () => void): void {
  const { test: isWanted } = route.useSearch();
  const navigate = route.useNavigate();
  const isStarted = useRef(false);
  useEffect(() => {
    if (!isWanted || isStarted.current) return;
    isStarted.current = true;
    runTest();
    void navigate({ search: { test: false }, replace: true });
  }, [isWanted, runTest, navigate]);
}

interface ActionsProps {
  server: ServerView;
  test: ReturnType<typeof useTestServer>;
  onEdit: () => void;
}

function Actions({ server, test, onEdit }: ActionsProps): ReactNode {
  return (
    <>
      <Button
        loading={test.isPending}
        onClick={() => {
          test.mutate();
        }}
      >
        {texts.test}
      </Button>
      <LinkButton variant="default" to="/runs/new" search={{ server_id: server.id }}>
        {texts.run}
      </LinkButton>
      <Button variant="default" onClick={onEdit}>
        {texts.edit}
      </Button>
    </>
  );
}

/** Switches that are saved at once, and what ends the server. */
function Settings({ server }: { server: ServerView }): ReactNode {
  const { features } = useMe();
  const navigate = route.useNavigate();
  const update = useUpdateServer(server.id);
  const remove = useDeleteServer();
  const [isDeleting, setDeleting] = useState(false);
  const change = (changed: ServerChange) => {
    update.mutate(
      // One member, whatever its value was: no version is needed.
      { change: changed },
      { onError: (error) => notifications.show({ color: 'red', message: error.message }) },
    );
  };
  return (
    <section className={classes['settings']}>
      <Switch
        label={texts.tokenRuns}
        description={texts.tokenRunsHint}
        checked={server.token_runs}
        disabled={!features.execution_servers || update.isPending}
        onChange={(event) => {
          change({ token_runs: event.currentTarget.checked });
        }}
      />
      <Group mt="md" gap="xs">
        <LinkButton variant="default" to="/runs" search={{ server_id: server.id }}>
          {texts.runs}
        </LinkButton>
        {features.execution_servers && (
          <>
            {!server.is_default && (
              <Button
                variant="default"
                onClick={() => {
                  change({ is_default: true });
                }}
              >
                {texts.makeDefault}
              </Button>
            )}
            <Button
              variant="default"
              onClick={() => {
                change({ is_active: !server.is_active });
              }}
            >
              {server.is_active ? texts.disable : texts.enable}
            </Button>
          </>
        )}
        <Button
          variant="default"
          onClick={() => {
            setDeleting(true);
          }}
        >
          {texts.delete}
        </Button>
      </Group>
      <ConfirmDialog
        opened={isDeleting}
        title={texts.deleteTitle}
        confirmLabel={texts.delete}
        onConfirm={async () => {
          await remove.mutateAsync(server.id);
          void navigate({ to: '/servers' });
        }}
        onClose={() => {
          setDeleting(false);
        }}
      >
        {texts.deleteText(server.name)}
      </ConfirmDialog>
    </section>
  );
}
