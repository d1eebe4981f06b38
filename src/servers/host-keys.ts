import { AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { userOwner } from '../lib/owner.ts';
import type { HostKey, Runner, ServerType } from '../runners/runner.ts';
import { createListJumpServerIds, listJumpServers } from './jump-chain.ts';
import type { ConfirmHostKey, ServerView } from './schema.ts';
import { decryptConfig, encryptConfig } from './secret-encryption.ts';
import type { RunnerAccess } from './runner-access.ts';
import { getServer } from './server-reads.ts';
import type { ServerChangeAuthor, ServerWriter } from './server-writer.ts';
import { updateServer, type StoredServer } from './servers-store.ts';
import { undecryptable } from './targets.ts';
import { toServerView } from './views.ts';

/** What owners say about the keys by which hosts prove who they are. */
export interface HostKeyConfirmation {
  /**
   * Stores exactly the key that was sent, and seals the server's secrets anew for a host that has it.
   * @param id the server that was tested; the key is that of the server `hop` on its way where there is one.
   * @returns the server whose key it is.
   * @throws AppError `not_found` (404); `validation_failed` (400) for a server that has no host key, or a `hop` that
   *   is not on the way; `key_undecryptable` (424); `database_unavailable` (503).
   */
  confirmHostKey(author: ServerChangeAuthor, id: string, key: ConfirmHostKey): Promise<ServerView>;
}

export interface HostKeyConfirmationDeps {
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
  kinds: RunnerAccess;
  writer: ServerWriter;
}

export function createHostKeyConfirmation({
  keyring,
  runners,
  kinds,
  writer,
}: HostKeyConfirmationDeps): HostKeyConfirmation {
  const referencesOf = createListJumpServerIds(runners);
  return {
    confirmHostKey: (author, id, { type, fingerprint, hop }) =>
      writer.write(author, async ({ sql, servers, recordChange: tell }) => {
        const server = getServer(servers, id);
        const subject =
          hop == null || hop === id
            ? server
            : listJumpServers(servers, server, referencesOf).find((each) => each.id === hop);
        if (subject === undefined) throw notInJumpChain();
        const runner = kinds.findRunner(subject.serverType);
        if (runner?.needsHostKey !== true) throw hasNoHostKey(subject);
        const place = { owner: userOwner(author.userId), serverId: subject.id, hostKey: subject.hostKey };
        const config = await decryptConfig(keyring, runner, place, subject.config);
        if (config === undefined) throw undecryptable(subject.name);
        const hostKey = { type, fingerprint };
        if (matchesHostKey(subject.hostKey, hostKey)) return toServerView(subject, runner);
        const sealed = encryptConfig(keyring, runner, { ...place, hostKey }, config);
        await tell('server.host_key_confirmed', subject.id);
        const stored = await updateServer(sql, subject.id, { ...subject, config: sealed, hostKey }, false);
        return toServerView(stored, runner);
      }),
  };
}

function matchesHostKey(known: HostKey | null, key: HostKey): boolean {
  return known?.type === key.type && known.fingerprint === key.fingerprint;
}

function notInJumpChain(): AppError {
  const message = 'must be the id of a server that this one goes through';
  return new AppError('validation_failed', 'The request is not valid; see errors.', {
    errors: [{ path: 'hop', message }],
  });
}

function hasNoHostKey({ name, serverType }: StoredServer): AppError {
  return new AppError(
    'validation_failed',
    `“${name}” has no host key: it is a server of the kind ${serverType}. If it goes through an SSH server, say that one's id as hop.`,
  );
}
