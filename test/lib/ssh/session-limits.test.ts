import { describe, expect, it } from '@jest/globals';
import { text } from 'node:stream/consumers';
import type { SshServer } from '../../../src/lib/ssh/config.ts';
import type { ExecStream, SshConnections } from '../../../src/lib/ssh/connections.ts';
import { createJob, LIMITS, openRunner, readAll, targetAt } from '../../runners/ssh/ssh-runs.ts';
import { describeWithSshd, startSshd } from '../../support/sshd.ts';
import { startScriptedServer } from './scripted-server.ts';
import { neverAborted, openConnections, serverAt } from './servers.ts';

const times = <T>(count: number, create: () => T): T[] => Array.from({ length: count }, create);
const openCat = (connections: SshConnections, server: SshServer) =>
  connections.openExecStream(server, 'cat', neverAborted());

/** Ends commands and reads what they print. */
const readCats = (streams: readonly ExecStream[]) =>
  Promise.all(
    streams.map(async (stream) => {
      stream.end('done');
      return await text(stream);
    }),
  );

describeWithSshd('an OpenSSH server that allows few sessions on a connection', () => {
  it.each([
    [1, 4, 4],
    [1, 8, 8],
    [2, 4, 2],
    [2, 8, 4],
    [3, 8, 3],
  ])(
    'runs with MaxSessions %d all of %d commands at once, on %d connections or one more',
    async (max, count, expected) => {
      const server = serverAt(await startSshd({ lines: [`MaxSessions ${max}`] }));
      const { connections, dials } = openConnections();
      for (let round = 0; round < 2; round += 1) {
        const streams = await Promise.all(times(count, () => openCat(connections, server)));
        expect(await readCats(streams)).toEqual(times(count, () => 'done'));
        // A session can outlast its channel for a moment: then a command gets another connection.
        expect([expected, expected + 1]).toContain(dials());
      }
    },
  );

  it.each([
    [1, 4],
    [1, 8],
    [2, 4],
    [2, 8],
  ])('runs with MaxSessions %d all of %d jobs that are started together', async (max, count) => {
    const target = targetAt(serverAt(await startSshd({ lines: [`MaxSessions ${max}`] })));
    const runner = openRunner();
    const run = () =>
      readAll(runner.run(target, createJob({ program: { command: 'echo ran' } }), LIMITS, neverAborted()));
    for (const result of await Promise.all(times(count, run)))
      expect(result).toMatchObject({
        output: 'ran\n',
        exit: { cause: 'exited', code: 0, cleanup: 'verified' },
      });
  });

  it('runs all commands when it also drops every second unauthenticated connection', async () => {
    const lines = ['MaxSessions 1', 'MaxStartups 1:100:1'];
    const server = serverAt(await startSshd({ lines }));
    const { connections } = openConnections();
    const run = async () => readCats([await openCat(connections, server)]);
    expect(await Promise.all(times(8, run))).toEqual(times(8, () => ['done']));
  });

  it.each([1, 2])('is tested online with MaxSessions %d', async (max) => {
    const target = targetAt(serverAt(await startSshd({ lines: [`MaxSessions ${max}`] })));
    const result = await openRunner().test(target, neverAborted());
    expect(result).toMatchObject({ status: 'online', hostKey: null });
    expect(result.stages.filter(({ status }) => status !== 'ok')).toEqual([]);
  });

  it('runs a second command of a dedicated connection with one session on a connection', async () => {
    const server = serverAt(await startSshd({ lines: ['MaxSessions 1'] }));
    const { connections } = openConnections();
    const connection = await connections.connect(server, neverAborted(), () => undefined);
    const [first, second] = [
      await connection.exec('cat', neverAborted()),
      await connection.exec('echo second', neverAborted()),
    ];
    expect(await text(second)).toBe('second\n');
    first.end('first');
    expect(await text(first)).toBe('first');
    connection.close();
  });
});

describe('a server that refuses every session', () => {
  it('fails all commands that were started together, on one connection', async () => {
    const server = serverAt(await startScriptedServer({ maxSessions: 0 }));
    const { connections, dials } = openConnections();
    const results = await Promise.allSettled(times(8, () => openCat(connections, server)));
    for (const result of results)
      expect(result).toMatchObject({
        status: 'rejected',
        reason: { failure: 'error', stage: 'permission', message: expect.stringContaining('MaxSessions') },
      });
    expect(dials()).toBe(1);
  });
});

describe('a server whose sessions outlast their channels', () => {
  it('gets another connection for the next command', async () => {
    const server = serverAt(
      await startScriptedServer({
        ...{ maxSessions: 1, keepsSessions: true },
        exec: (channel) => {
          channel.write('done');
          channel.exit(0);
          channel.end();
        },
      }),
    );
    const { connections, dials } = openConnections();
    for (const expected of [1, 2, 3]) {
      expect(await readCats([await openCat(connections, server)])).toEqual(['done']);
      expect(dials()).toBe(expected);
    }
  });
});
