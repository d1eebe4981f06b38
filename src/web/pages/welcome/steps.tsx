import { Button, Group } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { providersQuery, useAddKey } from '../../api/keys.ts';
import { useMe } from '../../api/me.ts';
import { CopyButton } from '../../components/copy-button.tsx';
import { ErrorNotice } from '../../components/error-notice.tsx';
import { LinkButton } from '../../components/link-button.tsx';
import { pageSettings } from '../../page-settings.ts';
import { welcomeTexts } from '../../texts/welcome.ts';
import classes from './welcome.module.css';

export interface StepProps {
  isDone: boolean;
}

/** Accepted by the demo provider, which exists in local mode alone. */
const DEMO_KEY = { provider: 'demo', key: 'demo-my-first-key', label: 'Demo key', validate: true };
/** The demo user who gets the demo host. */
const DEMO_OPERATOR = 'operator';

export function KeyStep({ isDone }: StepProps): ReactNode {
  const { features } = useMe();
  const { data: providers = [] } = useQuery(providersQuery);
  const add = useAddKey();
  const texts = welcomeTexts.steps.key;
  const hasDemo = pageSettings.mode === 'local' && providers.some(({ id }) => id === DEMO_KEY.provider);
  if (!features.byok) return null;
  return (
    <>
      {hasDemo && !isDone && <p>{texts.demoText}</p>}
      <Group gap="xs">
        {hasDemo && !isDone && (
          <Button
            variant="light"
            loading={add.isPending}
            onClick={() => {
              add.mutate(DEMO_KEY);
            }}
          >
            {texts.demo}
          </Button>
        )}
        <LinkButton variant="default" to="/keys">
          {texts.link}
        </LinkButton>
      </Group>
      <ErrorNotice error={add.error} />
    </>
  );
}

export function ServerStep({ isDone }: StepProps): ReactNode {
  const { features, username } = useMe();
  const texts = welcomeTexts.steps.server;
  if (!features.execution_servers) return null;
  return (
    <>
      {pageSettings.mode === 'local' && username === DEMO_OPERATOR && !isDone && (
        <>
          <p>{texts.demoText}</p>
          <div className={classes['command']}>
            <code>{texts.demoCommand}</code>
            <CopyButton value={texts.demoCommand} />
          </div>
        </>
      )}
      <LinkButton variant="default" to="/servers/new">
        {texts.link}
      </LinkButton>
    </>
  );
}

export function RequestStep(_props: StepProps): ReactNode {
  const { features } = useMe();
  const texts = welcomeTexts.steps.request;
  return (
    <Group gap="xs">
      <LinkButton variant="default" to="/tokens">
        {texts.link}
      </LinkButton>
      {features.execution_servers && (
        <LinkButton variant="subtle" to="/runs/new">
          {texts.run}
        </LinkButton>
      )}
    </Group>
  );
}
