import { z } from 'zod';
import type { Owner } from '../owner.ts';
import type { SshHostKey } from './host-key.ts';
import { findPrivateKeyProblem } from './private-key.ts';
import { SshError } from './ssh-error.ts';

/** A user name or address goes into no shell; this keeps control characters out of messages. */
const NO_CONTROL_CHARACTERS = /^[^\p{Cc}\p{Cf}]+$/u;
const HOST = /^(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[?[0-9A-Fa-f:.]+\]?)$/;
const MAX_SECRET_LENGTH = 4_096;
const MAX_PRIVATE_KEY_LENGTH = 32_768;

const secret = (maxLength: number) => z.string().min(1).max(maxLength).nullable().default(null);

/** `connection_config` of an SSH server as on the wire, with nothing undeclared. */
export const sshConfig = z
  .strictObject({
    host: z.string().max(253).regex(HOST, 'A host is a name or an address, without port or user.'),
    port: z.number().int().min(1).max(65_535).default(22),
    username: z.string().max(128).regex(NO_CONTROL_CHARACTERS, 'A user name holds no control characters.'),
    auth_method: z.enum(['password', 'key']),
    password: secret(MAX_SECRET_LENGTH),
    private_key: secret(MAX_PRIVATE_KEY_LENGTH),
    passphrase: secret(MAX_SECRET_LENGTH),
    jump: z.string().min(1).max(64).nullable().default(null),
  })
  .superRefine((config, context) => {
    const member = config.auth_method === 'password' ? 'password' : 'private_key';
    const addIssue = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: [path], message });
    if (config[member] === null) addIssue(member, `With auth_method "${config.auth_method}" it is needed.`);
    if (config.private_key === null) return;
    const keyProblem = findPrivateKeyProblem(config.private_key, config.passphrase);
    if (keyProblem !== undefined) addIssue('private_key', keyProblem);
  });

export type SshConfig = z.infer<typeof sshConfig>;

/** A server as whoever connects to it has it; the {@link SshConfig} is read when it is dialled. */
export interface SshServer {
  serverId: string;
  /** Nothing is shared between owners. */
  owner: Owner;
  version: number;
  config: unknown;
  /** The confirmed host key; null before that: then nothing is sent but what shows the key. */
  hostKey: SshHostKey | null;
  /** The owner's other servers, by id. */
  jumpServers: ReadonlyMap<string, SshServer>;
}

/** One SSH connection on the way to a server. */
export interface SshHop {
  serverId: string;
  owner: Owner;
  version: number;
  config: SshConfig;
  hostKey: SshHostKey | null;
  /** The server's id where it is only passed through; null for the last. */
  id: string | null;
}

const MAX_HOPS = 5;

/**
 * The hops to a server: its jump servers from the outermost on, then itself.
 * @throws SshError when a jump server is missing, goes in a circle, or is another owner's.
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
  const parsed = sshConfig.safeParse(server.config);
  if (parsed.success) return parsed.data;
  const message = parsed.error.issues[0]?.message ?? 'it is not one of an SSH server';
  const isKey = parsed.error.issues[0]?.path[0] === 'private_key';
  throw new SshError({
    failure: isKey ? 'auth_failed' : 'error',
    stage: isKey ? 'authentication' : 'policy',
    hop,
    message: isKey ? message : `The configuration cannot be used: ${message}`,
  });
}

function createJumpError(hop: string): SshError {
  const message =
    'The jump server cannot be used: it must be another SSH server of yours, without a circle, ' +
    `over at most ${MAX_HOPS - 1} of them.`;
  return new SshError({ failure: 'error', stage: 'policy', hop, message });
}
