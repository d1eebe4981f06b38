import { getRouteApi } from '@tanstack/react-router';
import { useState, type ReactNode } from 'react';
import { useMe } from '../../api/me.ts';
import { PageHeader } from '../../components/page-header.tsx';
import { serversTexts as texts, serverTypeTexts, type ServerTypeId } from '../../texts/servers.ts';
import { ServerForm } from './server-form.tsx';
import classes from './servers.module.css';

const route = getRouteApi('/servers/new');
const TYPES: readonly ServerTypeId[] = ['ssh', 'docker', 'kubernetes', 'local'];

/** Asks for the type, then shows its form. A saved server is tested on its own page. */
export function NewServerPage(): ReactNode {
  const { features } = useMe();
  const navigate = route.useNavigate();
  const [type, setType] = useState<ServerTypeId>('ssh');
  const offered = TYPES.filter((one) => one !== 'local' || features.local_execution);
  return (
    <>
      <PageHeader title={texts.form.addTitle} />
      <fieldset className={classes['types']}>
        <legend>{texts.form.type}</legend>
        {offered.map((one) => (
          <label key={one} data-checked={one === type}>
            <input
              type="radio"
              name="type"
              value={one}
              checked={one === type}
              onChange={() => {
                setType(one);
              }}
            />
            <strong>{serverTypeTexts[one].label}</strong>
            <span>{serverTypeTexts[one].text}</span>
          </label>
        ))}
      </fieldset>
      <ServerForm
        key={type}
        type={type}
        onDone={({ id }) => {
          void navigate({ to: '/servers/$id', params: { id }, search: { test: true } });
        }}
        onCancel={() => {
          void navigate({ to: '/servers' });
        }}
      />
    </>
  );
}
