import { requireRecentSignIn } from '../http/authorization.ts';
import type { Principal } from '../http/principal.ts';
import { AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { userOwner } from '../lib/owner.ts';
import type { HostKey } from '../lib/ssh/host-key.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { createListJumpServerIds, listJumpServers } from './jump-chain.ts';
import type { ConfirmHostKey, ServerView } from './schema.ts';
import { decryptConfig, encryptConfig } from './secret-encryption.ts';
import type { ServerWriter } from './server-writer.ts';
import { getServer, updateServer, type StoredServer } from './servers-store.ts';
import { secretsUndecryptable, type RunnerAccess } from './open-server.ts';
import { toServerView } from './views.ts';

/** Confirmation of SSH host keys by the owners of servers. */
export interface HostKeyConfirmation {
  /**
   * Stores exactly the key that was sent, and encrypts the server's secrets again, bound to this key.
   * @param id the tested server. With `hop`, the key belongs to that jump server of it.
   * @returns the server that the key belongs to.
   * @throws AppError `reauth_required` (403) for another key than the stored one without a recent sign-in; `not_found` (404); `validation_failed` (400) for a server without a host key, or a `hop` that
   *   is not in the jump chain; `key_undecryptable` (424); `database_unavailable` (503).
   */
  confirmHostKey(author: HostKeyAuthor, id: string, key: ConfirmHostKey): Promise<ServerView>;
}

interface HostKeyAuthor {
  principal: Principal;
  requestId: string;
}

export interface HostKeyConfirmationDeps {
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
  runnerAccess: RunnerAccess;
  writer: ServerWriter;
}

export function createHostKeyConfirmation({
  keyring,
  runners,
  runnerAccess,
  writer,
}: HostKeyConfirmationDeps): HostKeyConfirmation {
  const listJumpServerIds = createListJumpServerIds(runners);
  return {
    confirmHostKey({ principal, requestId }, id, { type, fingerprint, hop }) {
      const author = { userId: principal.user.id, requestId };
      return writer.write(author, async ({ sql, servers, recordChange }) => {
        const server = getServer(servers, id);
        const subject =
          hop == null || hop === id
            ? server
            : listJumpServers(servers, server, listJumpServerIds).find((each) => each.id === hop);
        if (subject === undefined) throw notInJumpChain();
        const runner = runnerAccess.findRunner(subject.serverType);
        if (runner?.needsHostKey !== true) throw hasNoHostKey(subject);
        const binding = { owner: userOwner(author.userId), serverId: subject.id, hostKey: subject.hostKey };
        const config = await decryptConfig(keyring, runner, binding, subject.config);
        if (config === undefined) throw secretsUndecryptable(subject.name);
        const hostKey = { type, fingerprint };
        if (matchesHostKey(subject.hostKey, hostKey)) return toServerView(subject, runner);
        if (subject.hostKey !== null) requireRecentSignIn(principal);
        const encrypted = encryptConfig(keyring, runner, { ...binding, hostKey }, config);
        await recordChange('server.host_key_confirmed', subject.id);
        const stored = await updateServer(sql, subject.id, { ...subject, config: encrypted, hostKey }, false);
        return toServerView(stored, runner);
      });
    },
  };
}

function matchesHostKey(known: HostKey | null, key: HostKey): boolean {
  return known?.type === key.type && known.fingerprint === key.fingerprint;
}

function notInJumpChain(): AppError {
  const message = 'must be the id of a jump server of this server';
  return new AppError('validation_failed', 'The request is not valid; see errors.', {
    errors: [{ path: 'hop', message }],
  });
}

function hasNoHostKey({ name, serverType }: StoredServer): AppError {
  return new AppError(
    'validation_failed',
    `“${name}” has no host key, because its type is ${serverType}. To confirm the key of its SSH server, send that server's id as hop.`,
  );
}
