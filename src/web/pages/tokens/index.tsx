import { Button } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import { tokensQuery } from '../../api/tokens.ts';
import { EmptyState } from '../../components/empty-state.tsx';
import { ErrorState } from '../../components/error-state.tsx';
import { Loading } from '../../components/loading.tsx';
import { PageHeader } from '../../components/page-header.tsx';
import { shellTexts } from '../../texts/shell.ts';
import { tokensTexts as texts } from '../../texts/tokens.ts';
import { CreateTokenDialog } from './create-token-dialog.tsx';
import { Snippets } from './snippets-panel.tsx';
import { TokenTable } from './token-table.tsx';
import classes from './tokens.module.css';

export function TokensPage(): ReactNode {
  const tokens = useQuery(tokensQuery);
  const [isCreating, setCreating] = useState(false);
  const make = (
    <Button
      onClick={() => {
        setCreating(true);
      }}
    >
      {texts.make}
    </Button>
  );
  const isEmpty = tokens.data?.length === 0;
  return (
    <>
      <PageHeader
        title={shellTexts.pages.tokens}
        description={texts.description}
        actions={isEmpty ? undefined : make}
      />
      {tokens.data === undefined ? (
        tokens.isError ? (
          <ErrorState error={tokens.error} onRetry={() => void tokens.refetch()} />
        ) : (
          <Loading />
        )
      ) : isEmpty ? (
        <EmptyState title={texts.emptyTitle} action={make}>
          {texts.emptyText}
        </EmptyState>
      ) : (
        <TokenTable tokens={tokens.data} />
      )}
      <section className={classes['ready']} aria-labelledby="ready">
        <h2 id="ready">{texts.snippets}</h2>
        <p>{texts.snippetsHint}</p>
        <Snippets token={texts.placeholder} />
      </section>
      {isCreating && (
        <CreateTokenDialog
          onClose={() => {
            setCreating(false);
          }}
        />
      )}
    </>
  );
}
