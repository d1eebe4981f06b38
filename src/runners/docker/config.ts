import { createPrivateKey, X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { findPrivateKeyError } from '../../lib/crypto/private-key-limits.ts';
import { environmentSchema, variableName } from '../../lib/environment-variables.ts';
import { setupLine } from '../../lib/setup-line.ts';
import { dockerVolumes } from './volumes.ts';

const MAX_HOST_LENGTH = 260;
const MAX_PEM_LENGTH = 32_768;
const TCP_ADDRESS = /^tcp:\/\/((?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)|\[[0-9a-f:.]+\]):([1-9]\d{0,4})$/i;
const SERVER_ID = /^[A-Za-z0-9_-]{1,64}$/;
/** Registry and path, tag, digest (distribution, "reference"), without its rarer forms. */
const IMAGE =
  /^(?:[A-Za-z0-9.-]+(?::\d{1,5})?\/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$/;
/** Has Python and bash. */
const DEFAULT_IMAGE = 'python:3.13-slim';

/** An empty form field counts as left out. */
const pem = z
  .string()
  .max(MAX_PEM_LENGTH)
  .nullable()
  .default(null)
  .transform((text) => (text?.trim() === '' ? null : text));

/** Schema of `connection_config` of a Docker server. Undeclared members are refused. */
export const dockerConfig = z
  .strictObject({
    host: z.string().min(1).max(MAX_HOST_LENGTH),
    ca: pem,
    client_cert: pem,
    client_key: pem,
    image: z
      .string()
      .max(255)
      .regex(IMAGE, 'Write the image as for docker pull, e.g. python:3.13-slim.')
      .default(DEFAULT_IMAGE),
    volumes: dockerVolumes.default([]),
    environment: environmentSchema(variableName),
    setup: setupLine,
  })
  .superRefine((config, context) => {
    for (const [member, message] of listConfigIssues(config)) {
      context.addIssue({ code: 'custom', path: [member], message });
    }
  });

export type DockerConfig = z.infer<typeof dockerConfig>;

/** How to reach the engine. */
export type EngineConnection =
  | { kind: 'tls'; host: string; port: number; ca: string | null; client: { cert: string; key: string } }
  /** Through one of the owner's SSH servers. */
  | { kind: 'ssh'; serverId: string };

/** @throws Error for a configuration that did not pass the schema. */
export function toEngineConnection(config: DockerConfig): EngineConnection {
  const address = findAddress(config.host);
  if (address === undefined) return { kind: 'ssh', serverId: config.host };
  const { ca, client_cert: cert, client_key: key } = config;
  if (cert === null || key === null)
    throw new Error('client_cert and client_key must be set: parse the configuration first');
  return { kind: 'tls', ...address, ca, client: { cert, key } };
}

function findAddress(text: string): { host: string; port: number } | undefined {
  const [, host, port] = TCP_ADDRESS.exec(text) ?? [];
  return host === undefined || Number(port) > 65_535 ? undefined : { host, port: Number(port) };
}

type ConfigIssue = [member: 'host' | 'ca' | 'client_cert' | 'client_key', message: string];

function listConfigIssues(
  config: Record<'host', string> & Record<'ca' | 'client_cert' | 'client_key', string | null>,
) {
  const { host, ca, client_cert: cert, client_key: key } = config;
  const issues: ConfigIssue[] = [];
  if (findAddress(host) === undefined) {
    if (!SERVER_ID.test(host)) issues.push(['host', explainHost(host)]);
    if (ca !== null || cert !== null || key !== null)
      issues.push(['host', 'Certificates are used only with a host of the form tcp://name:port.']);
    return issues;
  }
  if (cert === null)
    issues.push([
      'client_cert',
      'Needed with tcp://: an engine without client certificates is open to anyone.',
    ]);
  if (key === null) issues.push(['client_key', 'Needed with tcp://: the private key of client_cert.']);
  if (ca !== null && !isCertificate(ca)) issues.push(['ca', 'Not a certificate in PEM form.']);
  if (cert !== null && !isCertificate(cert)) issues.push(['client_cert', 'Not a certificate in PEM form.']);
  if (key !== null) issues.push(...listKeyIssues(key, cert));
  return issues;
}

function explainHost(host: string): string {
  if (/^(unix|npipe|fd):|^\//.test(host))
    return 'Sockets of this machine are not supported: use tcp:// or an SSH server.';
  if (host.startsWith('ssh:'))
    return 'Add the machine as an SSH server first, and name that server’s id here.';
  if (/^https?:/.test(host)) return 'Write tcp:// instead; the connection is always encrypted.';
  return 'A host is tcp://name:port, or the id of one of your SSH servers.';
}

function listKeyIssues(key: string, cert: string | null): ConfigIssue[] {
  if (key.includes('ENCRYPTED'))
    return [
      ['client_key', 'The key has a passphrase: remove it (openssl pkey) before you store the key here.'],
    ];
  // Checked before OpenSSL reads the key.
  const limitIssue = findPrivateKeyError(key);
  if (limitIssue !== undefined) return [['client_key', limitIssue]];
  try {
    const parsed = createPrivateKey(key);
    if (cert !== null && isCertificate(cert) && !new X509Certificate(cert).checkPrivateKey(parsed))
      return [['client_key', 'This is not the key of client_cert.']];
    return [];
  } catch {
    return [['client_key', 'Not a private key in PEM form.']];
  }
}

function isCertificate(text: string): boolean {
  try {
    return new X509Certificate(text).fingerprint256.length > 0;
  } catch {
    return false;
  }
}
