import type { AppError } from '../lib/errors.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { invalidConfig } from './config-input.ts';
import type { StoredServer } from './servers-store.ts';

/** How many of a user's servers may stand between this installation and the one that runs the code. */
export const MAX_JUMP_SERVERS = 3;

/** The part of a server that says what it goes through. It is not secret, so that nothing is opened for it. */
export type JumpChainNode = Pick<StoredServer, 'id' | 'name' | 'serverType' | 'config' | 'isActive'>;

/** The ids of the servers that one goes through directly. */
export type ListJumpServerIds = (server: Pick<JumpChainNode, 'serverType' | 'config'>) => readonly string[];

export function createListJumpServerIds(runners: ReadonlyMap<ServerType, Runner>): ListJumpServerIds {
  return ({ serverType, config }) => runners.get(serverType)?.jumpServerIds(config) ?? [];
}

/**
 * Checks what a new or changed server goes through, and that nothing of the owner's goes too far or in a circle.
 * @param servers all servers of the owner as they are stored.
 * @param changed the new or changed one as it is to be.
 * @throws AppError `validation_failed` (400) that names the member at fault.
 */
export function checkJumpChain(
  stored: readonly JumpChainNode[],
  changed: JumpChainNode,
  referencesOf: ListJumpServerIds,
): void {
  const servers = [...stored.filter(({ id }) => id !== changed.id), changed];
  for (const id of referencesOf(changed)) {
    const hop = servers.find((server) => server.id === id);
    if (hop?.serverType !== 'ssh')
      throw invalidJumpServer(changed, id, 'must be the id of one of your SSH servers');
    if (!hop.isActive) throw invalidJumpServer(changed, id, `names “${hop.name}”, which is paused`);
  }
  const [first] = referencesOf(changed);
  if (first === undefined) return;
  for (const server of [changed, ...listDependents(servers, changed.id, referencesOf)]) {
    if (countJumpServers(servers, server, referencesOf) <= MAX_JUMP_SERVERS) continue;
    const message = `makes “${server.name}” go through more than ${MAX_JUMP_SERVERS} servers, or in a circle`;
    throw invalidJumpServer(changed, first, message);
  }
}

/** The longest way from a server on; more than {@link MAX_JUMP_SERVERS} for a circle. */
function countJumpServers(
  servers: readonly JumpChainNode[],
  from: JumpChainNode,
  referencesOf: ListJumpServerIds,
  walked = 0,
): number {
  if (walked > MAX_JUMP_SERVERS) return walked;
  const next = referencesOf(from).flatMap((id) => servers.find((server) => server.id === id) ?? []);
  return Math.max(
    walked,
    ...next.map((server) => countJumpServers(servers, server, referencesOf, walked + 1)),
  );
}

/** All servers that go through one, near or far. */
export function listDependents<T extends JumpChainNode>(
  servers: readonly T[],
  id: string,
  referencesOf: ListJumpServerIds,
): T[] {
  return collectReachable([id], (through) =>
    servers.filter((server) => referencesOf(server).includes(through)),
  );
}

/** All servers that one goes through, near or far. */
export function listJumpServers<T extends JumpChainNode>(
  servers: readonly T[],
  from: T,
  referencesOf: ListJumpServerIds,
): T[] {
  const byIds = (ids: readonly string[]) => servers.filter((server) => ids.includes(server.id));
  const next = (id: string) => byIds(byIds([id]).flatMap(referencesOf));
  return collectReachable([from.id], next);
}

/** Everything that `next` leads to from these ids, each once; a circle ends where it began. */
function collectReachable<T extends JumpChainNode>(ids: readonly string[], next: (id: string) => T[]): T[] {
  const found = new Map<string, T>();
  const waiting = [...ids];
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    for (const server of next(id)) {
      if (found.has(server.id)) continue;
      found.set(server.id, server);
      waiting.push(server.id);
    }
  }
  return [...found.values()];
}

/** 400 that names the member whose value the reference is. */
function invalidJumpServer({ config }: JumpChainNode, id: string, message: string): AppError {
  const member = Object.keys(config).find((name) => config[name] === id);
  return invalidConfig([{ path: member ?? '', message }]);
}
