import { Button, Group, Select } from '@mantine/core';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';
import type { RunView } from '../../../runs/schema.ts';
import { useMe } from '../../api/me.ts';
import { runsQuery, type RunFilter } from '../../api/runs.ts';
import { serversQuery } from '../../api/servers.ts';
import { EmptyState } from '../../components/empty-state.tsx';
import { ErrorState } from '../../components/error-state.tsx';
import { LinkButton } from '../../components/link-button.tsx';
import { Loading } from '../../components/loading.tsx';
import { PageHeader } from '../../components/page-header.tsx';
import { RelativeTime } from '../../components/relative-time.tsx';
import { StatusBadge } from '../../components/status-badge.tsx';
import { TierNotice } from '../../components/tier-notice.tsx';
import { formatDuration } from '../../texts/format.ts';
import { describeRun, languageNames, runsTexts as texts } from '../../texts/runs.ts';
import { shellTexts } from '../../texts/shell.ts';
import classes from './runs.module.css';

const route = getRouteApi('/runs');

/** The history of runs. The filters are in the address, so that other pages link to them. */
export function RunsPage(): ReactNode {
  const { features } = useMe();
  const filter = route.useSearch();
  const navigate = route.useNavigate();
  const runs = useInfiniteQuery(runsQuery(filter));
  const listed = runs.data?.pages.flatMap(({ data }) => data);
  const isFiltered = Object.values(filter).some((value) => value !== '');
  const start = features.execution_servers ? (
    <LinkButton to="/runs/new">{texts.start}</LinkButton>
  ) : undefined;
  const setFilter = (changed: Partial<RunFilter>) => void navigate({ search: { ...filter, ...changed } });
  const showAll = () => {
    setFilter({ server_id: '', status: '', language: '' });
  };
  return (
    <>
      <PageHeader title={shellTexts.pages.runs} description={texts.description} actions={start} />
      <TierNotice missing={texts.tierMissing} />
      <Filters filter={filter} onChange={setFilter} />
      {listed === undefined ? (
        runs.isError ? (
          <ErrorState error={runs.error} onRetry={() => void runs.refetch()} />
        ) : (
          <Loading lines={8} />
        )
      ) : listed.length === 0 ? (
        isFiltered ? (
          <EmptyState
            title={texts.noMatchTitle}
            action={
              <Button variant="default" onClick={showAll}>
                {texts.noMatchReset}
              </Button>
            }
          >
            {texts.noMatchText}
          </EmptyState>
        ) : (
          <EmptyState title={texts.emptyTitle} action={start}>
            {texts.emptyText}
          </EmptyState>
        )
      ) : (
        <RunTable runs={listed} />
      )}
      {runs.hasNextPage && (
        <Button
          mt="md"
          variant="default"
          loading={runs.isFetchingNextPage}
          onClick={() => void runs.fetchNextPage()}
        >
          {texts.more}
        </Button>
      )}
    </>
  );
}

function Filters(props: { filter: RunFilter; onChange: (changed: Partial<RunFilter>) => void }): ReactNode {
  const { filter, onChange } = props;
  const { data: servers = [] } = useQuery(serversQuery);
  const all = { value: '', label: texts.filters.all };
  const { python, javascript, bash } = languageNames;
  const toOptions = (names: Record<string, string>) =>
    Object.entries(names).map(([value, label]) => ({ value, label }));
  return (
    <Group mb="md" align="end">
      <Select
        label={texts.filters.server}
        allowDeselect={false}
        data={[all, ...servers.map(({ id, name }) => ({ value: id, label: name }))]}
        value={filter.server_id}
        onChange={(value) => {
          onChange({ server_id: value ?? '' });
        }}
      />
      <Select
        label={texts.filters.status}
        allowDeselect={false}
        data={[all, ...toOptions(texts.statuses)]}
        value={filter.status}
        onChange={(value) => {
          onChange({ status: (value ?? '') as RunFilter['status'] });
        }}
      />
      <Select
        label={texts.filters.language}
        allowDeselect={false}
        data={[all, ...toOptions({ python, javascript, bash })]}
        value={filter.language}
        onChange={(value) => {
          onChange({ language: (value ?? '') as RunFilter['language'] });
        }}
      />
    </Group>
  );
}

function RunTable({ runs }: { runs: readonly RunView[] }): ReactNode {
  const { columns } = texts;
  return (
    <table className={classes['table']}>
      <thead>
        <tr>
          <th scope="col">{columns.run}</th>
          <th scope="col">{columns.status}</th>
          <th scope="col">{columns.server}</th>
          <th scope="col">{columns.started}</th>
          <th scope="col">{columns.duration}</th>
        </tr>
      </thead>
      <tbody>
        {runs.map((run) => {
          const { label, tone } = describeRun(run);
          return (
            <tr key={run.id}>
              <th scope="row">
                <Link to="/runs/$id" params={{ id: run.id }}>
                  {texts.nameOf(languageNames[run.language ?? 'command'], run.id)}
                </Link>
              </th>
              <td>
                <StatusBadge tone={tone}>{label}</StatusBadge>
              </td>
              <td data-label={columns.server}>{run.server_name}</td>
              <td data-label={columns.started}>
                <RelativeTime time={run.created_at} />
              </td>
              <td data-label={columns.duration}>
                {run.duration_ms === null ? texts.unknown : formatDuration(run.duration_ms)}
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
