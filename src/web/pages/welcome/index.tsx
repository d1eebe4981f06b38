import { Button, Group, Progress } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import type { ReactNode } from 'react';
import type { z } from 'zod';
import type { OnboardingView } from '../../../onboarding/schema.ts';
import { useMe } from '../../api/me.ts';
import { onboardingQuery, useUpdateOnboarding } from '../../api/onboarding.ts';
import { ErrorNotice } from '../../components/error-notice.tsx';
import { ErrorState } from '../../components/error-state.tsx';
import { Loading } from '../../components/loading.tsx';
import { PageHeader } from '../../components/page-header.tsx';
import { StatusBadge } from '../../components/status-badge.tsx';
import { NAVIGATION } from '../../shell/navigation.ts';
import { welcomeTexts as texts } from '../../texts/welcome.ts';
import { KeyStep, RequestStep, ServerStep } from './steps.tsx';
import { useDoneSteps } from './use-done-steps.ts';
import classes from './welcome.module.css';

const STEPS = [
  { name: 'key', Content: KeyStep },
  { name: 'server', Content: ServerStep },
  { name: 'request', Content: RequestStep },
] as const;

/** The introduction: a key, a server, a request. Where the user is, is kept on the server. */
export function WelcomePage(): ReactNode {
  const onboarding = useQuery(onboardingQuery);
  return (
    <>
      <PageHeader title={texts.title} description={texts.description} />
      {onboarding.data === undefined ? (
        onboarding.isError ? (
          <ErrorState error={onboarding.error} onRetry={() => void onboarding.refetch()} />
        ) : (
          <Loading />
        )
      ) : (
        <Steps onboarding={onboarding.data} />
      )}
    </>
  );
}

function Steps({ onboarding }: { onboarding: z.output<typeof OnboardingView> }): ReactNode {
  const { features } = useMe();
  const navigate = useNavigate();
  const update = useUpdateOnboarding();
  const done = useDoneSteps();
  const current = onboarding.current_step;
  const goTo = (step: number) => {
    update.mutate({ current_step: step });
  };
  const complete = () => {
    update.mutate({ completed: true }, { onSuccess: () => void navigate({ to: NAVIGATION[0].to }) });
  };
  return (
    <>
      <p className={classes['progress']}>{texts.progress(onboarding.progress)}</p>
      <div className={classes['bar']} aria-hidden="true">
        <Progress value={onboarding.progress} />
      </div>
      {!features.byok && <p>{texts.tierText}</p>}
      <ol className={classes['steps']}>
        {STEPS.map(({ name, Content }, index) => (
          <li key={name} aria-current={index + 1 === current ? 'step' : undefined}>
            <div className={classes['head']}>
              <h2>{texts.steps[name].title}</h2>
              <StatusBadge tone={done[name] ? 'good' : 'neutral'}>
                {done[name] ? texts.done : texts.open}
              </StatusBadge>
            </div>
            {index + 1 === current && (
              <>
                <p>{texts.steps[name].text}</p>
                <Content isDone={done[name]} />
              </>
            )}
          </li>
        ))}
      </ol>
      <ErrorNotice error={update.error} />
      <Group gap="xs">
        {current > 1 && (
          <Button
            variant="default"
            onClick={() => {
              goTo(current - 1);
            }}
          >
            {texts.previous}
          </Button>
        )}
        {current < STEPS.length ? (
          <Button
            loading={update.isPending}
            onClick={() => {
              goTo(current + 1);
            }}
          >
            {texts.next}
          </Button>
        ) : (
          <Button loading={update.isPending} onClick={complete}>
            {texts.finish}
          </Button>
        )}
        <Button variant="subtle" onClick={complete}>
          {texts.skip}
        </Button>
      </Group>
    </>
  );
}
