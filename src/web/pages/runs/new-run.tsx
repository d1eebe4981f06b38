import { Button, FileInput, NumberInput, Select, Textarea, TextInput } from '@mantine/core';
import type { UseFormReturnType } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { useState, type ReactNode } from 'react';
import type { RunDetails } from '../../../runs/schema.ts';
import type { ServerView } from '../../../servers/schema.ts';
import { runQuery, useStartRun } from '../../api/runs.ts';
import { serversQuery } from '../../api/servers.ts';
import { EmptyState } from '../../components/empty-state.tsx';
import { ErrorNotice } from '../../components/error-notice.tsx';
import { ErrorState } from '../../components/error-state.tsx';
import { Loading } from '../../components/loading.tsx';
import { PageHeader } from '../../components/page-header.tsx';
import { useDraftForm } from '../../drafts.ts';
import { languageNames, runsTexts } from '../../texts/runs.ts';
import { FIGURE_LINES, parseEnv, toRunRequest, type RunValues } from './run-request.ts';
import classes from './runs.module.css';

const texts = runsTexts.form;
const route = getRouteApi('/runs/new');
const LANGUAGES = ['python', 'javascript', 'bash', 'command'] as const;

/** The form of a new run, filled with an earlier one by `?again=`. */
export function NewRunPage(): ReactNode {
  const { again, server_id: serverId } = route.useSearch();
  const servers = useQuery(serversQuery);
  const earlier = useQuery({ ...runQuery(again), enabled: again !== '' });
  const failed = [servers, earlier].find(({ isError }) => isError);
  const usable = servers.data?.filter(({ is_active: isActive }) => isActive);
  const isReading = usable === undefined || (again !== '' && earlier.data === undefined);
  return (
    <>
      <PageHeader title={texts.title} />
      {failed !== undefined ? (
        <ErrorState error={failed.error} onRetry={() => void failed.refetch()} />
      ) : isReading ? (
        <Loading lines={8} />
      ) : usable.length === 0 ? (
        <EmptyState title={runsTexts.noServerTitle}>{runsTexts.noServerText}</EmptyState>
      ) : (
        <RunForm servers={usable} earlier={earlier.data} serverId={serverId} />
      )}
    </>
  );
}

interface RunFormProps {
  servers: readonly ServerView[];
  earlier: RunDetails | undefined;
  /** Of the page that leads here; empty: the default server. */
  serverId: string;
}

function RunForm({ servers, earlier, serverId }: RunFormProps): ReactNode {
  const navigate = route.useNavigate();
  const start = useStartRun();
  const [files, setFiles] = useState<File[]>([]);
  const { form, discardDraft } = useDraftForm<RunValues>({
    // A run that is repeated does not replace the draft of a new one.
    draftName: earlier === undefined ? 'run' : `run:${earlier.id}`,
    // Variables often hold secrets.
    toDraft: ({ env: _env, ...rest }) => rest,
    initialValues: initialValues(servers, earlier, serverId),
    validate: { env: (env) => (parseEnv(env) === undefined ? texts.envError : null) },
  });
  const submit = form.onSubmit(async (values) => {
    const request = await toRunRequest(values, files);
    start.mutate(
      { serverId: values.server, request },
      {
        onSuccess: ({ run_id: id }) => {
          discardDraft();
          void navigate({ to: '/runs/$id', params: { id } });
        },
      },
    );
  });
  return (
    <form className={classes['form']} onSubmit={submit}>
      <Select
        label={texts.server}
        allowDeselect={false}
        data={servers.map(({ id, name, is_default: isDefault }) => ({
          value: id,
          label: isDefault ? texts.defaultServer(name) : name,
        }))}
        {...form.getInputProps('server')}
      />
      <Select
        label={texts.language}
        allowDeselect={false}
        data={LANGUAGES.map((value) => ({ value, label: languageNames[value] }))}
        {...form.getInputProps('language')}
      />
      <Program form={form} />
      <Options form={form} files={files} onFiles={setFiles} />
      <ErrorNotice error={start.error} />
      <Button type="submit" loading={start.isPending}>
        {texts.submit}
      </Button>
    </form>
  );
}

function initialValues(
  servers: readonly ServerView[],
  earlier: RunDetails | undefined,
  serverId: string,
): RunValues {
  const wanted = serverId === '' ? earlier?.server_id : serverId;
  const server =
    servers.find(({ id }) => id === wanted) ?? servers.find((one) => one.is_default) ?? servers[0];
  const program = earlier?.program ?? { language: 'python' as const, code: '' };
  const common = { server: server?.id ?? '', stdin: '', env: '', workdir: '', timeoutSeconds: 300 };
  return 'command' in program
    ? { ...common, language: 'command', program: program.command }
    : { ...common, language: program.language, program: program.code };
}

function Program({ form }: { form: UseFormReturnType<RunValues> }): ReactNode {
  const { language } = form.getValues();
  return (
    <div>
      <Textarea
        classNames={{ input: classes['code'] ?? '' }}
        label={language === 'command' ? texts.command : texts.code}
        autosize
        minRows={language === 'command' ? 2 : 10}
        maxRows={30}
        required
        withAsterisk={false}
        spellCheck={false}
        autoCapitalize="off"
        data-autofocus
        {...form.getInputProps('program')}
      />
      {language === 'python' && (
        <Button
          mt="xs"
          size="xs"
          variant="subtle"
          onClick={() => {
            form.setFieldValue('program', `${FIGURE_LINES}\n${form.getValues().program}`);
          }}
        >
          {texts.figures}
        </Button>
      )}
    </div>
  );
}

interface OptionsProps {
  form: UseFormReturnType<RunValues>;
  files: File[];
  onFiles: (files: File[]) => void;
}

function Options({ form, files, onFiles }: OptionsProps): ReactNode {
  return (
    <details>
      <summary className={classes['summary']}>{texts.options}</summary>
      <div className={classes['options']}>
        <NumberInput label={texts.timeout} min={1} max={3600} {...form.getInputProps('timeoutSeconds')} />
        <TextInput label={texts.workdir} description={texts.workdirHint} {...form.getInputProps('workdir')} />
        <Textarea
          label={texts.env}
          description={texts.envHint}
          autosize
          minRows={2}
          {...form.getInputProps('env')}
        />
        <Textarea label={texts.stdin} autosize minRows={2} {...form.getInputProps('stdin')} />
        <FileInput
          multiple
          clearable
          label={texts.files}
          description={texts.filesHint}
          value={files}
          onChange={onFiles}
        />
      </div>
    </details>
  );
}
