import { TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { useState, type ReactNode } from 'react';
import type { ProviderView } from '../../../keys/schema.ts';
import { useMe } from '../../api/me.ts';
import { EmptyState } from '../../components/empty-state.tsx';
import { ErrorState } from '../../components/error-state.tsx';
import { Loading } from '../../components/loading.tsx';
import { PageHeader } from '../../components/page-header.tsx';
import { TierNotice } from '../../components/tier-notice.tsx';
import { keysTexts as texts } from '../../texts/keys.ts';
import { ManageDialog } from './manage-dialog.tsx';
import { ProviderRow } from './provider-row.tsx';
import { keysQuery, providersQuery, statsQuery } from '../../api/keys.ts';
import classes from './keys.module.css';

const GROUPS = ['llm', 'tool', 'git'] as const;
const route = getRouteApi('/keys');

/** The opened provider is in the address, so that going back closes its dialog. */
export function KeysPage(): ReactNode {
  const providers = useQuery(providersQuery);
  const keys = useQuery(keysQuery);
  const { provider: openedId } = route.useSearch();
  const navigate = route.useNavigate();
  const open = (id: string | undefined) =>
    void navigate({ search: id === undefined ? {} : { provider: id } });
  const failed = [providers, keys].find(({ isError, data }) => isError && data === undefined);
  const opened = providers.data?.find(({ id }) => id === openedId);
  return (
    <>
      <PageHeader title={texts.title} description={<Summary />} />
      <TierNotice missing={texts.tierMissing} />
      {failed !== undefined ? (
        <ErrorState error={failed.error} onRetry={() => void failed.refetch()} />
      ) : providers.data === undefined || keys.data === undefined ? (
        <Loading lines={8} />
      ) : (
        <ProviderList providers={providers.data} onOpen={open} />
      )}
      {opened !== undefined && keys.data !== undefined && (
        <ManageDialog
          provider={opened}
          keys={keys.data.filter((key) => key.provider === opened.id)}
          onClose={() => {
            open(undefined);
          }}
        />
      )}
    </>
  );
}

function Summary(): ReactNode {
  const { data } = useQuery(statsQuery);
  const { tier } = useMe();
  // The place is kept while the numbers are read.
  if (data === undefined) return <>{texts.description}</>;
  const { configured_providers: configured, total_providers: total, valid_providers: valid } = data;
  return (
    <>
      {texts.description}
      <br />
      {texts.summary(configured, total, valid, tier)}
    </>
  );
}

function ProviderList(props: {
  providers: readonly ProviderView[];
  onOpen: (id: string) => void;
}): ReactNode {
  const [search, setSearch] = useState('');
  const words = search.trim().toLowerCase();
  const shown = props.providers.filter(({ id, name }) => `${id} ${name}`.toLowerCase().includes(words));
  return (
    <>
      <TextInput
        className={classes['search']}
        type="search"
        aria-label={texts.search}
        placeholder={texts.search}
        value={search}
        onChange={(event) => {
          setSearch(event.currentTarget.value);
        }}
      />
      {shown.length === 0 && <EmptyState title={texts.noMatch}>{texts.noMatchText}</EmptyState>}
      {GROUPS.map((kind) => {
        const group = shown.filter((provider) => provider.kind === kind);
        if (group.length === 0) return null;
        return (
          <section key={kind} aria-label={texts.groups[kind]}>
            <h2 className={classes['group']}>{texts.groups[kind]}</h2>
            <ul className={classes['providers']}>
              {group.map((provider) => (
                <ProviderRow key={provider.id} provider={provider} onOpen={props.onOpen} />
              ))}
            </ul>
          </section>
        );
      })}
    </>
  );
}
