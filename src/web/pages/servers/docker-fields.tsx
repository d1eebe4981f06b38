import { Select, Textarea, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { serversQuery } from '../../api/servers.ts';
import { serversTexts } from '../../texts/servers.ts';
import type { TypeFieldsProps } from './ssh-fields.tsx';
import classes from './servers.module.css';

const texts = serversTexts.form.docker;

export function DockerFields({ form, server }: TypeFieldsProps): ReactNode {
  const { engine } = form.getValues();
  const { data: servers = [] } = useQuery(serversQuery);
  const engines = [
    ...servers
      .filter(({ server_type: type }) => type === 'ssh')
      .map(({ id, name }) => ({ value: id, label: texts.overSsh(name) })),
    { value: 'tls', label: texts.tls },
  ];
  const pem = { autosize: true, minRows: 2, maxRows: 6, spellCheck: false, autoComplete: 'off' } as const;
  return (
    <>
      <p className={classes['warning']} role="note">
        {texts.rootWarning}
      </p>
      <Select label={texts.via} allowDeselect={false} data={engines} {...form.getInputProps('engine')} />
      {engine === 'tls' && (
        <>
          <TextInput
            label={texts.address}
            description={texts.addressHint}
            {...form.getInputProps('address')}
          />
          <Textarea label={texts.ca} {...pem} {...form.getInputProps('ca')} />
          <Textarea label={texts.cert} {...pem} {...form.getInputProps('cert')} />
          <Textarea
            label={texts.key}
            description={server === undefined ? undefined : serversTexts.form.keepSecret}
            {...pem}
            {...form.getInputProps('clientKey')}
          />
        </>
      )}
      <TextInput label={texts.image} description={texts.imageHint} {...form.getInputProps('image')} />
    </>
  );
}
