import { expect, it } from '@jest/globals';
import { createLog } from '../../src/lib/log.ts';
import type { Owner } from '../../src/lib/owner.ts';
import type { ServerType } from '../../src/runners/runner.ts';
import { createServerConnections } from '../../src/servers/server-connections.ts';
import { until } from '../support/until.ts';

/** Runners that report which owners were released, in the order of the calls. */
function createRunners(owners: Partial<Record<ServerType, Owner[]>>, failing?: ServerType) {
  const released: string[] = [];
  const runners = new Map(
    (Object.entries(owners) as [ServerType, Owner[]][]).map(([type, own]) => [
      type,
      {
        listOwners: () => own,
        async releaseOwner(owner: Owner) {
          // Other calls may begin now.
          await new Promise(setImmediate);
          released.push(`${type} ${owner}`);
          if (type === failing) throw new Error('not released');
        },
      },
    ]),
  );
  return { released, runners };
}

const log = createLog('silent');

it('lists the users to whose servers a runner holds something, once each', () => {
  const { runners } = createRunners({ ssh: ['user:a', 'org:x'], docker: ['user:b', 'user:a'], local: [] });
  expect(createServerConnections({ runners, log }).listConnectedUserIds()).toEqual(['a', 'b']);
});

it('closes those of Docker first, which removes containers through SSH', async () => {
  const { runners, released } = createRunners({ ssh: ['user:a'], docker: ['user:a'] });
  createServerConnections({ runners, log }).closeUserConnections('a');
  await until(() => released.length === 2);
  expect(released).toEqual(['docker user:a', 'ssh user:a']);
});

it('closes those of SSH also when Docker fails', async () => {
  const { runners, released } = createRunners({ ssh: ['user:a'], docker: ['user:a'] }, 'docker');
  createServerConnections({ runners, log }).closeUserConnections('a');
  await until(() => released.length === 2);
  expect(released).toContain('ssh user:a');
});
