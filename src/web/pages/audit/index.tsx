import { Button, Group, Select, TextInput } from '@mantine/core';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import { auditQuery, type ListedEvent, type AuditFilter } from '../../api/audit.ts';
import { keysQuery } from '../../api/keys.ts';
import { useMe } from '../../api/me.ts';
import { serversQuery } from '../../api/servers.ts';
import { tokensQuery } from '../../api/tokens.ts';
import { EmptyState } from '../../components/empty-state.tsx';
import { ErrorState } from '../../components/error-state.tsx';
import { Loading } from '../../components/loading.tsx';
import { PageHeader } from '../../components/page-header.tsx';
import { auditTexts as texts } from '../../texts/audit.ts';
import { formatDate, formatTime } from '../../texts/format.ts';
import { shellTexts } from '../../texts/shell.ts';
import { describeEvent, type Names } from './describe-event.ts';
import classes from './audit.module.css';

const NO_FILTER: AuditFilter = { action: '', from: '', to: '' };

export function AuditPage(): ReactNode {
  const [filter, setFilter] = useState(NO_FILTER);
  const events = useInfiniteQuery(auditQuery(filter));
  const isFiltered = Object.values(filter).some((value) => value !== '');
  const listed = events.data?.pages.flatMap(({ data }) => data);
  return (
    <>
      <PageHeader title={shellTexts.pages.audit} description={texts.description} />
      <Filters filter={filter} onChange={setFilter} />
      {listed === undefined ? (
        events.isError ? (
          <ErrorState error={events.error} onRetry={() => void events.refetch()} />
        ) : (
          <Loading lines={8} />
        )
      ) : listed.length === 0 ? (
        <EmptyState
          title={isFiltered ? texts.noMatchTitle : texts.emptyTitle}
          action={
            isFiltered && (
              <Button
                variant="default"
                onClick={() => {
                  setFilter(NO_FILTER);
                }}
              >
                {texts.noMatchReset}
              </Button>
            )
          }
        >
          {isFiltered ? texts.noMatchText : texts.emptyText}
        </EmptyState>
      ) : (
        <Days events={listed} />
      )}
      {events.hasNextPage && (
        <Button
          mt="md"
          variant="default"
          loading={events.isFetchingNextPage}
          onClick={() => void events.fetchNextPage()}
        >
          {texts.more}
        </Button>
      )}
    </>
  );
}

/** Options of the kind of event, grouped by what it is about. */
const ACTION_OPTIONS = [
  { value: '', label: texts.filters.everything },
  ...Object.entries(texts.actionGroups).map(([prefix, group]) => ({
    group,
    items: texts.actionOptions
      .filter(({ action }) => action.startsWith(`${prefix}.`))
      .map(({ action, label }) => ({ value: action, label })),
  })),
];

function Filters(props: { filter: AuditFilter; onChange: (filter: AuditFilter) => void }): ReactNode {
  const { filter, onChange } = props;
  return (
    <Group mb="md" align="end">
      <Select
        label={texts.filters.action}
        data={ACTION_OPTIONS}
        value={filter.action}
        allowDeselect={false}
        onChange={(action) => {
          onChange({ ...filter, action: action ?? '' });
        }}
      />
      {(['from', 'to'] as const).map((name) => (
        <TextInput
          key={name}
          type="date"
          label={texts.filters[name]}
          value={filter[name]}
          onChange={(event) => {
            onChange({ ...filter, [name]: event.currentTarget.value });
          }}
        />
      ))}
    </Group>
  );
}

/** Events below the day on which they happened, in the user's time zone. */
function Days({ events }: { events: readonly ListedEvent[] }): ReactNode {
  const names = useNames();
  const days = Map.groupBy(events, ({ time }) => formatDate(time));
  return [...days].map(([day, listed]) => (
    <section key={day} className={classes['day']}>
      <h2>{day}</h2>
      <ul>
        {listed.map((event) => (
          <li key={`${event.time} ${event.request_id} ${event.action} ${event.object}`}>
            <time dateTime={event.time}>{formatTime(event.time)}</time>
            <span>{describeEvent(event, names)}</span>
            <small>
              {texts.request} {event.request_id}
            </small>
          </li>
        ))}
      </ul>
    </section>
  ));
}

/** Names of what exists now. What was deleted since is shown by its id. */
function useNames(): Names {
  const { id } = useMe();
  const { data: keys = [] } = useQuery(keysQuery);
  const { data: tokens = [] } = useQuery(tokensQuery);
  const { data: servers = [] } = useQuery(serversQuery);
  return {
    userId: id,
    objects: new Map([
      ...keys.map((key): [string, string] => [
        `key:${key.provider}/${key.id}`,
        `${key.provider_name} ${texts.quoted(key.label ?? key.key_preview)}`,
      ]),
      ...servers.map((server): [string, string] => [`server:${server.id}`, texts.quoted(server.name)]),
      ...tokens.map((token): [string, string] => [`token:${token.id}`, texts.quoted(token.name)]),
    ]),
  };
}
