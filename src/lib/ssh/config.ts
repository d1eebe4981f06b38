import { z } from 'zod';
import type { Owner } from '../owner.ts';
import { setupLine } from '../setup-line.ts';
import { describeIssue } from '../validation-messages.ts';
import { refuseHiddenCharacters } from '../visible-text.ts';
import type { HostKey } from './host-key.ts';
import { findHostProblem } from './input-correction.ts';
import { findPrivateKeyProblem } from './private-key.ts';
import { sshEnvironment, sshInterpreters } from './program-settings.ts';
import { SshError } from './ssh-error.ts';

const HOST = /^(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[?[0-9A-Fa-f:.]+\]?)$/;
const MAX_SECRET_LENGTH = 4_096;
const MAX_PRIVATE_KEY_INPUT_LENGTH = 32_768;

const secret = (maxLength: number) => z.string().min(1).max(maxLength).nullable().default(null);

/** `connection_config` of an SSH server as on the wire. Undeclared members are refused. */
export const sshConfig = z
  .strictObject({
    host: z.string().max(253).regex(HOST, 'A host is a name or an address, without port or user.'),
    port: z.number().int().min(1).max(65_535).default(22),
    username: z.string().max(128).min(1).superRefine(refuseHiddenCharacters),
    auth_method: z.enum(['password', 'key']),
    password: secret(MAX_SECRET_LENGTH),
    private_key: secret(MAX_PRIVATE_KEY_INPUT_LENGTH),
    passphrase: secret(MAX_SECRET_LENGTH),
    jump: z.string().min(1).max(64).nullable().default(null),
    interpreters: sshInterpreters,
    environment: sshEnvironment,
    setup: setupLine,
  })
  .superRefine((config, context) => {
    const member = config.auth_method === 'password' ? 'password' : 'private_key';
    const addIssue = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: [path], message });
    if (config[member] === null) addIssue(member, `auth_method "${config.auth_method}" requires ${member}.`);
    if (config.private_key === null) return;
    const keyProblem = findPrivateKeyProblem(config.private_key, config.passphrase);
    if (keyProblem !== undefined) addIssue('private_key', keyProblem);
  });

export type SshConfig = z.infer<typeof sshConfig>;

/** A server to connect to. Its `config` is parsed as {@link SshConfig} at every connect. */
export interface SshServer {
  serverId: string;
  /** Connections are never shared between owners. */
  owner: Owner;
  version: number;
  config: unknown;
  /** The confirmed host key; null before the confirmation: then the handshake ends after the key exchange. */
  hostKey: HostKey | null;
  /** The owner's servers that can be jump servers, by id. */
  jumpServers: ReadonlyMap<string, SshServer>;
}

/** One SSH connection on the way to a server. */
export interface SshHop {
  serverId: string;
  owner: Owner;
  version: number;
  config: SshConfig;
  hostKey: HostKey | null;
  /** The server's id for a jump server; null for the last hop. */
  id: string | null;
}

const MAX_HOPS = 5;

/**
 * Lists the hops to a server: its jump servers, the outermost first, then the server itself.
 * @throws SshError when a jump server is missing or belongs to another owner, or the chain has a circle.
 */
export function resolveJumpChain(server: SshServer): SshHop[] {
  const hops: SshHop[] = [];
  let next: SshServer | undefined = server;
  while (next !== undefined) {
    const { serverId, owner, version, hostKey, jumpServers }: SshServer = next;
    const isLast = hops.length === 0;
    if (owner !== server.owner || hops.length === MAX_HOPS || hops.some((hop) => hop.serverId === serverId))
      throw createJumpError(serverId);
    const config = readConfig(next, isLast ? null : serverId);
    hops.unshift({ serverId, owner, version, config, hostKey, id: isLast ? null : serverId });
    next = config.jump === null ? undefined : jumpServers.get(config.jump);
    if (config.jump !== null && next === undefined) throw createJumpError(config.jump);
  }
  return hops;
}

function readConfig(server: SshServer, hop: string | null): SshConfig {
  const parsed = sshConfig.safeParse(server.config, { error: describeIssue });
  // The schema accepts such a host, because servers were stored with it.
  const hostProblem = parsed.success ? findHostProblem(parsed.data.host) : undefined;
  if (parsed.success && hostProblem === undefined) return parsed.data;
  const [issue] = parsed.error?.issues ?? [];
  const { path, message } = issue ?? { path: ['host'], message: hostProblem ?? '' };
  const isKey = issue?.code === 'custom' && path[0] === 'private_key';
  const member = ['connection_config', ...path].join('.');
  throw new SshError({
    failure: isKey ? 'auth_failed' : 'error',
    stage: isKey ? 'authentication' : 'policy',
    hop,
    message: isKey ? message : `The configuration is invalid. ${member}: ${message}`,
  });
}

function createJumpError(hop: string): SshError {
  const message =
    'The jump server cannot be used. It must be another SSH server of yours, and the jump chain must have no ' +
    `circle and at most ${MAX_HOPS - 1} jump servers.`;
  return new SshError({ failure: 'error', stage: 'policy', hop, message });
}
