import type { AppError } from '../lib/errors.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { invalidConfig } from './config-input.ts';
import type { StoredServer } from './servers-store.ts';

/** Maximum number of jump servers between this installation and the server that runs the code. */
export const MAX_JUMP_SERVERS = 3;

/** The part of a server that determines its jump servers. It contains no secret, so nothing is decrypted for it. */
export type JumpChainNode = Pick<StoredServer, 'id' | 'name' | 'serverType' | 'config' | 'isActive'>;

/** Lists the ids of the servers that a server connects through directly. */
export type ListJumpServerIds = (server: Pick<JumpChainNode, 'serverType' | 'config'>) => readonly string[];

export function createListJumpServerIds(runners: ReadonlyMap<ServerType, Runner>): ListJumpServerIds {
  return ({ serverType, config }) => runners.get(serverType)?.jumpServerIds(config) ?? [];
}

/**
 * Checks the jump servers of a new or changed server, and that no jump chain of the owner is too long or circular.
 * @param stored all servers of the owner as they are stored.
 * @param changed the new or changed server as it will be stored.
 * @throws AppError `validation_failed` (400) with the invalid member.
 */
export function checkJumpChain(
  stored: readonly JumpChainNode[],
  changed: JumpChainNode,
  listJumpServerIds: ListJumpServerIds,
): void {
  const servers = [...stored.filter(({ id }) => id !== changed.id), changed];
  for (const id of listJumpServerIds(changed)) {
    const jump = servers.find((server) => server.id === id);
    if (jump?.serverType !== 'ssh')
      throw invalidJumpServer(changed, id, 'must be the id of one of your SSH servers');
    if (!jump.isActive)
      throw invalidJumpServer(changed, id, `must not be “${jump.name}”, which is paused; switch it on first`);
  }
  const [first] = listJumpServerIds(changed);
  if (first === undefined) return;
  for (const server of [changed, ...listDependents(servers, changed.id, listJumpServerIds)]) {
    if (countJumpServers(servers, server, listJumpServerIds) <= MAX_JUMP_SERVERS) continue;
    const message = `gives “${server.name}” more than ${MAX_JUMP_SERVERS} jump servers, or a circle of them`;
    throw invalidJumpServer(changed, first, message);
  }
}

/** Length of the longest jump chain of a server; more than {@link MAX_JUMP_SERVERS} for a circle. */
function countJumpServers(
  servers: readonly JumpChainNode[],
  from: JumpChainNode,
  listJumpServerIds: ListJumpServerIds,
  passed = 0,
): number {
  if (passed > MAX_JUMP_SERVERS) return passed;
  const next = listJumpServerIds(from).flatMap((id) => servers.find((server) => server.id === id) ?? []);
  return Math.max(
    passed,
    ...next.map((server) => countJumpServers(servers, server, listJumpServerIds, passed + 1)),
  );
}

/** All servers that connect through a server, directly or indirectly. */
export function listDependents<T extends JumpChainNode>(
  servers: readonly T[],
  id: string,
  listJumpServerIds: ListJumpServerIds,
): T[] {
  return collectReachable([id], (serverId) =>
    servers.filter((server) => listJumpServerIds(server).includes(serverId)),
  );
}

/** All servers that a server connects through, directly or indirectly. */
export function listJumpServers<T extends JumpChainNode>(
  servers: readonly T[],
  from: T,
  listJumpServerIds: ListJumpServerIds,
): T[] {
  const byIds = (ids: readonly string[]) => servers.filter((server) => ids.includes(server.id));
  const next = (id: string) => byIds(byIds([id]).flatMap(listJumpServerIds));
  return collectReachable([from.id], next);
}

/** All servers that are reachable by `next` from these ids, each once. Terminates also for circles. */
function collectReachable<T extends JumpChainNode>(ids: readonly string[], next: (id: string) => T[]): T[] {
  const found = new Map<string, T>();
  const pending = [...ids];
  for (let id = pending.pop(); id !== undefined; id = pending.pop()) {
    for (const server of next(id)) {
      if (found.has(server.id)) continue;
      found.set(server.id, server);
      pending.push(server.id);
    }
  }
  return [...found.values()];
}

/** 400 with the member that contains the jump server's id. */
function invalidJumpServer({ config }: JumpChainNode, id: string, message: string): AppError {
  const member = Object.keys(config).find((name) => config[name] === id);
  return invalidConfig([{ path: member ?? '', message }]);
}
