import { STORED_SECRET_MASK, type ServerView } from '../../../servers/schema.ts';
import type { NewServer, ServerChange } from '../../api/servers.ts';
import type { ServerTypeId } from '../../texts/servers.ts';

/** The fields of the form, for all types of servers. Secrets are empty while a stored one is kept. */
export interface ServerValues {
  type: ServerTypeId;
  name: string;
  workspace: string;
  isDefault: boolean;
  host: string;
  port: number;
  username: string;
  method: 'key' | 'password';
  password: string;
  privateKey: string;
  passphrase: string;
  /** Id of another server; empty for none. */
  jump: string;
  /** Id of an SSH server, or `tls`. */
  engine: string;
  address: string;
  image: string;
  ca: string;
  cert: string;
  clientKey: string;
  kubeconfig: string;
  namespace: string;
  /** A line of shell that runs first; a secret, since it can set variables with secrets. */
  setup: string;
}

const DEFAULT_IMAGE = 'python:3.13-slim';

/** What is kept while the user signs in again. */
export function withoutSecrets(values: ServerValues): Partial<ServerValues> {
  return {
    ...values,
    password: '',
    privateKey: '',
    passphrase: '',
    clientKey: '',
    kubeconfig: '',
    setup: '',
  };
}

/** @param server undefined for a new one. */
export function toValues(server: ServerView | undefined, type: ServerTypeId): ServerValues {
  const config = server?.connection_config ?? {};
  const text = (name: string, fallback = '') => {
    const value = config[name];
    return typeof value === 'string' && value !== STORED_SECRET_MASK ? value : fallback;
  };
  const isTls = text('host').startsWith('tcp://');
  return {
    type: server?.server_type ?? type,
    name: server?.name ?? '',
    workspace: server?.workspace_path ?? '',
    isDefault: server?.is_default ?? false,
    host: text('host'),
    port: typeof config['port'] === 'number' ? config['port'] : 22,
    username: text('username'),
    method: text('auth_method') === 'password' ? 'password' : 'key',
    password: '',
    privateKey: '',
    passphrase: '',
    jump: text('jump'),
    engine: isTls ? 'tls' : text('host'),
    address: isTls ? text('host') : '',
    image: text('image', DEFAULT_IMAGE),
    ca: text('ca'),
    cert: text('client_cert'),
    clientKey: '',
    kubeconfig: '',
    namespace: text('namespace'),
    setup: '',
  };
}

/** An empty secret of a stored server is left out, which keeps it. */
function secret(name: string, text: string): Record<string, string> {
  return text === '' ? {} : { [name]: text };
}

/** The configuration as the API takes it. */
function toConfig(values: ServerValues): Record<string, unknown> {
  return { ...toTypeConfig(values), ...secret('setup', values.setup) };
}

function toTypeConfig(values: ServerValues): Record<string, unknown> {
  const orNull = (text: string) => (text.trim() === '' ? null : text);
  switch (values.type) {
    case 'ssh':
      return {
        host: values.host.trim(),
        port: values.port,
        username: values.username.trim(),
        auth_method: values.method,
        jump: orNull(values.jump),
        ...(values.method === 'password'
          ? secret('password', values.password)
          : { ...secret('private_key', values.privateKey), ...secret('passphrase', values.passphrase) }),
      };
    case 'docker':
      return values.engine === 'tls'
        ? {
            host: values.address.trim(),
            image: values.image.trim(),
            ca: orNull(values.ca),
            client_cert: orNull(values.cert),
            ...secret('client_key', values.clientKey),
          }
        : { host: values.engine, image: values.image.trim(), ca: null, client_cert: null, client_key: null };
    case 'kubernetes':
      return {
        image: values.image.trim(),
        namespace: orNull(values.namespace),
        ...secret('kubeconfig', values.kubeconfig),
      };
    case 'local':
      return {};
  }
}

export function toNewServer(values: ServerValues): NewServer {
  return {
    name: values.name,
    server_type: values.type,
    connection_config: toConfig(values),
    workspace_path: values.workspace === '' ? null : values.workspace,
    ...(values.isDefault ? { is_default: true } : {}),
  };
}

export function toChange(values: ServerValues): ServerChange {
  const { name, connection_config, workspace_path } = toNewServer(values);
  return { name, connection_config, workspace_path, is_default: values.isDefault };
}

/** Members that differ, by their names on the wire. */
export function listChangedMembers(before: ServerView, now: ServerView): string[] {
  const members = ['name', 'workspace_path', 'is_default', 'is_active', 'token_runs', 'host_key'] as const;
  const changed: string[] = members.filter((name) => !isEqual(before[name], now[name]));
  const names = new Set([...Object.keys(before.connection_config), ...Object.keys(now.connection_config)]);
  for (const name of names)
    if (!isEqual(before.connection_config[name], now.connection_config[name])) changed.push(name);
  return changed;
}

function isEqual(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
