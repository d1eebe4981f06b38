import { Tabs } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { modelsQuery } from '../../api/models.ts';
import { CopyButton } from '../../components/copy-button.tsx';
import { createSnippets } from './snippets.ts';
import classes from './tokens.module.css';

/** Names the system default, or says in the provider's own words that there is none. */
const DEFAULT_MODEL = 'default';

/** Lines for each kind of client, with this installation's address and models of the user. */
export function Snippets({ token }: { token: string }): ReactNode {
  const { data: models = [] } = useQuery(modelsQuery);
  const first = models[0]?.id ?? DEFAULT_MODEL;
  const anthropic = models.find(({ id }) => id.startsWith('anthropic/'))?.id ?? first;
  const snippets = createSnippets({
    origin: window.location.origin,
    token,
    models: { openai: models.find(({ id }) => id.startsWith('openai/'))?.id ?? first, anthropic },
  });
  return (
    <Tabs defaultValue={snippets[0]?.id ?? null} keepMounted={false}>
      <Tabs.List>
        {snippets.map(({ id, name }) => (
          <Tabs.Tab key={id} value={id}>
            {name}
          </Tabs.Tab>
        ))}
      </Tabs.List>
      {snippets.map(({ id, name, target, text }) => (
        <Tabs.Panel key={id} value={id}>
          <div className={classes['snippetHead']}>
            <span>{target}</span>
            <CopyButton value={text} />
          </div>
          <pre className={classes['snippet']} tabIndex={0} role="group" aria-label={name}>
            <code>{text}</code>
          </pre>
        </Tabs.Panel>
      ))}
    </Tabs>
  );
}
