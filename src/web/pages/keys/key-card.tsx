import { Badge, Button, Group, Loader } from '@mantine/core';
import { notifications } from '@mantine/notifications';
import { useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { KeyTested, KeyView, ProviderView } from '../../../keys/schema.ts';
import { useMe } from '../../api/me.ts';
import { ConfirmDialog } from '../../components/confirm-dialog.tsx';
import { RelativeTime } from '../../components/relative-time.tsx';
import { StatusBadge } from '../../components/status-badge.tsx';
import { formatDate, formatDuration, formatMoney } from '../../texts/format.ts';
import { keyStatusTexts, keysTexts as texts } from '../../texts/keys.ts';
import { EditKeyForm } from './edit-key-form.tsx';
import { KeyForm } from './key-form.tsx';
import { keyUsageQuery, useDeleteKeys, useTestKey, useUpdateKey } from '../../api/keys.ts';
import classes from './keys.module.css';

export interface KeyCardProps {
  provider: ProviderView;
  stored: KeyView;
}

/** One stored key: what is known about it, and what can be done with it. */
export function KeyCard({ provider, stored }: KeyCardProps): ReactNode {
  const [mode, setMode] = useState<'shown' | 'edited' | 'replaced'>('shown');
  const back = () => {
    setMode('shown');
  };
  const test = useTestKey();
  return (
    <li className={classes['key']} aria-label={stored.label ?? texts.noLabel}>
      <div className={classes['keyHead']}>
        <h3>{stored.label ?? texts.noLabel}</h3>
        <Badge variant="default" size="sm">
          {texts.personal}
        </Badge>
        <code>{stored.key_preview}</code>
        {!stored.enabled && <StatusBadge tone="neutral">{texts.disabled}</StatusBadge>}
      </div>
      <Status stored={stored} isTesting={test.isPending} result={test.data} error={test.error} />
      <Facts stored={stored} />
      {mode === 'shown' && <Actions provider={provider} stored={stored} test={test} onEdit={setMode} />}
      {mode === 'edited' && <EditKeyForm stored={stored} onDone={back} />}
      {mode === 'replaced' && <KeyForm provider={provider} replaced={stored} onDone={back} onCancel={back} />}
    </li>
  );
}

interface StatusProps {
  stored: KeyView;
  isTesting: boolean;
  result: KeyTested | undefined;
  error: Error | null;
}

function Status({ stored, isTesting, result, error }: StatusProps): ReactNode {
  const { label, tone, next } = keyStatusTexts[stored.test_status];
  if (isTesting)
    return (
      <p className={classes['status']} role="status">
        <Loader size={16} /> {texts.form.testing}
      </p>
    );
  const latency = result?.details.latency_ms ?? null;
  return (
    <div className={classes['status']} role="status">
      <StatusBadge tone={tone}>
        {label}
        {latency !== null && ` ${texts.testTook(formatDuration(latency))}`}
      </StatusBadge>
      {error !== null ? <p>{error.message}</p> : stored.test_status !== 'valid' && <p>{next}</p>}
      {result?.details.billed === true && <p>{texts.testBilled}</p>}
    </div>
  );
}

function Facts({ stored }: { stored: KeyView }): ReactNode {
  const [nowMs] = useState(() => Date.now());
  const time = (value: string | null) => (value === null ? texts.never : <RelativeTime time={value} />);
  const facts: [string, ReactNode][] = [
    [texts.created, time(stored.added_date)],
    [texts.lastUsed, time(stored.last_used)],
    [texts.lastTested, time(stored.last_tested)],
    [texts.usage, <Usage key="usage" keyId={stored.id} />],
  ];
  if (stored.endpoint !== null) facts.unshift([texts.endpoint, stored.endpoint]);
  if (stored.expires_at !== null) {
    const isPast = Date.parse(stored.expires_at) <= nowMs;
    facts.push([isPast ? texts.expired : texts.form.expires, formatDate(stored.expires_at)]);
  }
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

function Usage({ keyId }: { keyId: string }): ReactNode {
  const { data } = useQuery(keyUsageQuery);
  if (data === undefined) return '…';
  const totals = data.data.find(({ group }) => group === keyId);
  if (totals === undefined) return texts.noUsage;
  const { input_tokens: input, output_tokens: output, cost_usd: cost, unpriced } = totals;
  const money = cost === null ? texts.unknownCost : formatMoney(cost);
  return texts.usageOf(
    input + output,
    cost !== null && unpriced > 0 ? texts.partlyUnknownCost(money) : money,
  );
}

interface ActionsProps extends KeyCardProps {
  test: ReturnType<typeof useTestKey>;
  onEdit: (mode: 'edited' | 'replaced') => void;
}

function Actions({ provider, stored, test, onEdit }: ActionsProps): ReactNode {
  const { features } = useMe();
  const update = useUpdateKey();
  const remove = useDeleteKeys();
  const [isDeleting, setDeleting] = useState(false);
  const name = stored.label ?? stored.key_preview;
  const toggle = () => {
    update.mutate(
      { key: stored, change: { enabled: !stored.enabled } },
      { onError: (error) => notifications.show({ color: 'red', message: error.message }) },
    );
  };
  const button = { variant: 'default', size: 'xs' } as const;
  return (
    <Group gap="xs" mt="sm">
      {features.byok && (
        <>
          <Button
            {...button}
            disabled={test.isPending}
            onClick={() => {
              test.mutate(stored);
            }}
          >
            {texts.test}
          </Button>
          <Button {...button} loading={update.isPending} onClick={toggle}>
            {stored.enabled ? texts.disable : texts.enable}
          </Button>
          <Button
            {...button}
            onClick={() => {
              onEdit('edited');
            }}
          >
            {texts.edit}
          </Button>
          <Button
            {...button}
            onClick={() => {
              onEdit('replaced');
            }}
          >
            {texts.replace}
          </Button>
        </>
      )}
      <Button
        {...button}
        color="red"
        variant="light"
        onClick={() => {
          setDeleting(true);
        }}
      >
        {texts.delete}
      </Button>
      <ConfirmDialog
        opened={isDeleting}
        title={texts.deleteTitle}
        confirmLabel={texts.delete}
        isDangerous
        onConfirm={() => remove.mutateAsync({ provider: provider.id, keyId: stored.id })}
        onClose={() => {
          setDeleting(false);
        }}
      >
        {texts.deleteText(name, provider.name)}
      </ConfirmDialog>
    </Group>
  );
}
