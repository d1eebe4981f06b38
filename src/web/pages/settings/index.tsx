import { Button, SegmentedControl, useMantineColorScheme } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import type { ReactNode } from 'react';
import { aboutQuery } from '../../api/installation.ts';
import { useMe } from '../../api/me.ts';
import { useUpdateOnboarding } from '../../api/onboarding.ts';
import { ErrorNotice } from '../../components/error-notice.tsx';
import { PageHeader } from '../../components/page-header.tsx';
import { pageSettings } from '../../page-settings.ts';
import { SignOutForm } from '../../shell/sign-out.tsx';
import { settingsTexts as texts } from '../../texts/settings.ts';
import { shellTexts } from '../../texts/shell.ts';
import { TIER_NAMES } from '../../texts/tiers.ts';
import { Sessions } from './sessions.tsx';
import classes from './settings.module.css';

export function SettingsPage(): ReactNode {
  return (
    <>
      <PageHeader title={shellTexts.pages.settings} description={texts.description} />
      <Profile />
      <Section title={texts.sessions}>
        <Sessions />
      </Section>
      <Appearance />
      <FirstSteps />
      <Retention />
      <Installation />
    </>
  );
}

function Section({ title, children }: { title: string; children: ReactNode }): ReactNode {
  return (
    <section className={classes['section']}>
      <h2>{title}</h2>
      <div>{children}</div>
    </section>
  );
}

function Facts({ facts }: { facts: readonly (readonly [name: string, value: ReactNode])[] }): ReactNode {
  return (
    <dl className={classes['facts']}>
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function Profile(): ReactNode {
  const me = useMe();
  return (
    <>
      <Section title={texts.profile}>
        <Facts
          facts={[
            [texts.username, me.username],
            [texts.name, me.name ?? texts.missing],
            [texts.email, me.email ?? texts.missing],
          ]}
        />
        <p>{texts.accountText}</p>
        <div className={classes['actions']}>
          <Button component="a" href={pageSettings.account_url} variant="default">
            {texts.accountLink}
          </Button>
          <SignOutForm>
            <Button type="submit" variant="default">
              {texts.signOut}
            </Button>
          </SignOutForm>
        </div>
      </Section>
      <Section title={texts.tier}>
        <p className={classes['tier']}>{TIER_NAMES[me.tier]}</p>
        <p>{me.features.byok ? texts.byokIncluded : texts.byokMissing}</p>
        <p>{texts.tierText}</p>
      </Section>
    </>
  );
}

function Appearance(): ReactNode {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  return (
    <Section title={texts.appearance}>
      <SegmentedControl
        aria-label={texts.colorScheme}
        value={colorScheme}
        onChange={(value) => setColorScheme(value)}
        data={[
          { value: 'auto', label: texts.system },
          { value: 'light', label: texts.light },
          { value: 'dark', label: texts.dark },
        ]}
      />
    </Section>
  );
}

function FirstSteps(): ReactNode {
  const update = useUpdateOnboarding();
  const navigate = useNavigate();
  const open = () => {
    update.mutate(
      { completed: false, current_step: 1 },
      { onSuccess: () => void navigate({ to: '/welcome' }) },
    );
  };
  return (
    <Section title={texts.firstSteps}>
      <p>{texts.firstStepsText}</p>
      <Button variant="default" loading={update.isPending} onClick={open}>
        {texts.openFirstSteps}
      </Button>
      <ErrorNotice error={update.error} />
    </Section>
  );
}

function Retention(): ReactNode {
  const { data } = useQuery(aboutQuery);
  const days = (count: number | undefined) => (count === undefined ? texts.missing : texts.days(count));
  return (
    <Section title={texts.retention}>
      <Facts
        facts={[
          [texts.auditDays, days(data?.retention.audit_days)],
          [texts.usageDays, days(data?.retention.usage_days)],
          [texts.runDays, days(data?.retention.run_history_days)],
        ]}
      />
    </Section>
  );
}

function Installation(): ReactNode {
  const { version, mode, realm } = pageSettings;
  return (
    <Section title={texts.installation}>
      <Facts
        facts={[
          [texts.version, version],
          [texts.mode, texts.modes[mode]],
          [texts.realm, realm],
        ]}
      />
    </Section>
  );
}
