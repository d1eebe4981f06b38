import { expect, it } from '@jest/globals';
import { createLog } from '../../../src/lib/log.ts';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { dockerConfig } from '../../../src/runners/docker/config.ts';
import { createEnginePool, type EnginePool } from '../../../src/runners/docker/engine-pool.ts';
import type { TargetServer } from '../../../src/runners/runner.ts';
import { localDialer } from '../../lib/ssh/servers.ts';
import { afterThisTest, createTarget } from './test-engine.ts';

const config = dockerConfig.parse({ host: 'jump' });

function openPool(): EnginePool {
  const dialer = localDialer();
  const ssh = createSshConnections({ dialer });
  const pool = createEnginePool({ dialer, ssh, log: createLog('silent'), instance: 'test', idleMs: 60_000 });
  afterThisTest(async () => {
    await pool.close();
    await ssh.close();
    await dialer.close();
  });
  return pool;
}

/** A server at one version, behind an SSH server at one version. */
function serverAt(version: number, jumpVersion = 1) {
  const jump: TargetServer = { ...createTarget(config), serverId: 'jump', version: jumpVersion };
  return createTarget(config, { serverId: 'server', version, jumpServers: new Map([['jump', jump]]) });
}

const isCached = (pool: EnginePool, target: ReturnType<typeof serverAt>) =>
  pool.getEngine(target) === pool.getEngine(target);

it('does not cache an engine again for a released version of a server', async () => {
  const pool = openPool();
  const engine = pool.getEngine(serverAt(2));
  expect(pool.getEngine(serverAt(2))).toBe(engine);
  await pool.release('server');
  for (const outdated of [serverAt(2), serverAt(1)]) expect(isCached(pool, outdated)).toBe(false);
  expect(isCached(pool, serverAt(3))).toBe(true);
});

it('releases the engines of one owner, who may use the same version again', async () => {
  const pool = openPool();
  const [own, other] = [serverAt(2), { ...serverAt(2), owner: 'user:other', serverId: 'other' } as const];
  const [engine, otherEngine] = [pool.getEngine(own), pool.getEngine(other)];
  expect(pool.listOwners()).toEqual([own.owner, 'user:other']);
  await pool.releaseOwner(own.owner);
  expect(pool.listOwners()).toEqual(['user:other']);
  expect(pool.getEngine(other)).toBe(otherEngine);
  expect(pool.getEngine(own)).not.toBe(engine);
  expect(isCached(pool, own)).toBe(true);
});

it('does not replace a newer version with an older one', () => {
  const pool = openPool();
  const engine = pool.getEngine(serverAt(2));
  expect(isCached(pool, serverAt(1, 2))).toBe(false);
  expect(pool.getEngine(serverAt(2))).toBe(engine);
});

it('treats a change of the SSH server as a new version, and caches it', async () => {
  const pool = openPool();
  const engine = pool.getEngine(serverAt(2, 1));
  await pool.release('server');
  expect(isCached(pool, serverAt(2, 1))).toBe(false);
  const next = pool.getEngine(serverAt(2, 2));
  expect(next).not.toBe(engine);
  expect(isCached(pool, serverAt(2, 1))).toBe(false);
  expect(pool.getEngine(serverAt(2, 2))).toBe(next);
});
