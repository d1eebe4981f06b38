import { Button } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { useEffect, type ReactNode } from 'react';
import type { RunDetails } from '../../../runs/schema.ts';
import { runQuery, useCancelRun } from '../../api/runs.ts';
import { ErrorState } from '../../components/error-state.tsx';
import { LinkButton } from '../../components/link-button.tsx';
import { Loading } from '../../components/loading.tsx';
import { PageHeader } from '../../components/page-header.tsx';
import { RelativeTime } from '../../components/relative-time.tsx';
import { StatusBadge } from '../../components/status-badge.tsx';
import { formatDuration } from '../../texts/format.ts';
import { describeRun, languageNames, runsTexts as texts, type DescribedRun } from '../../texts/runs.ts';
import { shellTexts } from '../../texts/shell.ts';
import { OutputView } from './output-view.tsx';
import { useRunOutput, type FollowedRun } from './use-run-output.ts';
import classes from './runs.module.css';

const route = getRouteApi('/runs/$id');

/** One run: what ran where, its output while it arrives, and how it ended. */
export function RunPage(): ReactNode {
  const { id } = route.useParams();
  const run = useQuery(runQuery(id));
  if (run.data === undefined)
    return (
      <>
        <PageHeader title={shellTexts.pages.runs} />
        {run.isError ? (
          <ErrorState error={run.error} onRetry={() => void run.refetch()} />
        ) : (
          <Loading lines={8} />
        )}
      </>
    );
  // A new run starts with new state.
  return <FollowedRunView key={id} run={run.data} />;
}

function FollowedRunView({ run }: { run: RunDetails }): ReactNode {
  const followed = useRunOutput(run.id);
  const { exit } = followed.output;
  const client = useQueryClient();
  useEffect(() => {
    if (exit !== undefined) void client.invalidateQueries({ queryKey: ['runs'] });
  }, [client, exit]);
  const state: DescribedRun =
    exit === undefined
      ? { ...run, status: run.status === 'finished' ? 'running' : run.status }
      : { status: 'finished', ...exit };
  return (
    <>
      <PageHeader
        title={texts.nameOf(languageNames[run.language ?? 'command'], run.id)}
        actions={<Actions run={run} isOver={exit !== undefined} />}
      />
      <State followed={followed} state={state} />
      <dl className={classes['facts']}>
        <div>
          <dt>{texts.facts.server}</dt>
          <dd>{run.server_name}</dd>
        </div>
        <div>
          <dt>{texts.facts.started}</dt>
          <dd>
            <RelativeTime time={run.created_at} />
          </dd>
        </div>
        <div>
          <dt>{texts.facts.duration}</dt>
          <dd>{exit === undefined ? texts.unknown : formatDuration(exit.duration_ms)}</dd>
        </div>
      </dl>
      {followed.error === undefined ? (
        <OutputView output={followed.output} runId={run.id} />
      ) : (
        <ErrorState error={followed.error} />
      )}
      <ProgramText program={run.program} />
    </>
  );
}

/** Announced to screen readers when the run ends, not before. */
function State({ followed, state }: { followed: FollowedRun; state: DescribedRun }): ReactNode {
  const { output, isConnected } = followed;
  const { exit, phase } = output;
  const { label, tone } = describeRun(state);
  const detail =
    exit !== undefined || phase === undefined
      ? undefined
      : phase.phase === 'queued'
        ? texts.queued(phase.position ?? null)
        : phase.phase === 'preparing'
          ? texts.preparing
          : undefined;
  return (
    <div className={classes['state']}>
      <StatusBadge tone={tone}>{detail ?? label}</StatusBadge>
      {!isConnected && <p>{texts.reconnecting}</p>}
      <div role="status" className={classes['ended']}>
        {exit !== undefined && (
          <>
            <span className={classes['announced']}>{texts.ended(label)}</span>
            {exit.message !== null && <p>{exit.message}</p>}
            <p>{texts.cleanup[exit.cleanup]}</p>
          </>
        )}
      </div>
    </div>
  );
}

function Actions({ run, isOver }: { run: RunDetails; isOver: boolean }): ReactNode {
  const cancel = useCancelRun(run.id);
  if (isOver)
    return (
      <LinkButton variant="default" to="/runs/new" search={{ again: run.id }}>
        {texts.again}
      </LinkButton>
    );
  return (
    <Button
      variant="default"
      loading={cancel.isPending}
      disabled={cancel.isSuccess}
      onClick={() => {
        cancel.mutate();
      }}
    >
      {cancel.isSuccess ? texts.cancelling : texts.cancel}
    </Button>
  );
}

function ProgramText({ program }: { program: RunDetails['program'] }): ReactNode {
  if (program === null) return <p>{texts.programHidden}</p>;
  return (
    <details className={classes['program']}>
      <summary>{texts.program}</summary>
      <pre tabIndex={0} role="group" aria-label={texts.program}>
        <code>{'command' in program ? program.command : program.code}</code>
      </pre>
    </details>
  );
}
