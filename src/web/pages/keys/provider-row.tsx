import { Anchor, Button } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import type { ProviderView } from '../../../keys/schema.ts';
import { useMe } from '../../api/me.ts';
import { keysTexts as texts } from '../../texts/keys.ts';
import { ProviderIcon } from './provider-icon.tsx';
import { WhoPays } from './who-pays.tsx';
import { statsQuery } from '../../api/keys.ts';
import classes from './keys.module.css';

export interface ProviderRowProps {
  provider: ProviderView;
  onOpen: (id: string) => void;
}

/** A provider with what is stored for it, who pays, and the button that opens its dialog. */
export function ProviderRow({ provider, onOpen }: ProviderRowProps): ReactNode {
  const { features } = useMe();
  const { id, name, key_format: format, key_count: count, docs_url: docs } = provider;
  const { data: stats } = useQuery(statsQuery);
  const valid = stats?.providers[id]?.valid_count ?? 0;
  return (
    <li className={classes['provider']}>
      <ProviderIcon id={id} name={name} />
      <div className={classes['names']}>
        <h3>{name}</h3>
        <p>
          {count > 0 ? texts.keyCount(count, valid) : format === null ? texts.noKey : texts.keyFormat(format)}
          {docs !== null && (
            <>
              {' · '}
              <Anchor href={docs} target="_blank" rel="noreferrer" inherit aria-label={texts.getKeyFor(name)}>
                {texts.getKey}
              </Anchor>
            </>
          )}
        </p>
      </div>
      <WhoPays provider={provider} />
      <Button
        className={classes['open']}
        variant={count > 0 ? 'default' : 'light'}
        disabled={!features.byok && count === 0}
        aria-label={count > 0 ? texts.manageFor(name) : texts.addKeyFor(name)}
        onClick={() => {
          onOpen(id);
        }}
      >
        {count > 0 ? texts.manage : texts.addKey}
      </Button>
    </li>
  );
}
