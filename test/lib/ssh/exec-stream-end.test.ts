import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from '@jest/globals';
import type { SshServer } from '../../../src/lib/ssh/config.ts';
import type { ExecStream, SshConnections } from '../../../src/lib/ssh/connections.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import { startScriptedServer } from './scripted-server.ts';
import { neverAborted, openConnections, serverAt } from './servers.ts';

const login = { username: 'somebody', password: 'password-of-nobody' };

type EndStream = (stream: ExecStream, connections: SshConnections) => unknown;

const ORDERS: Record<string, EndStream> = {
  'is destroyed': (stream) => stream.destroy(),
  'is destroyed, and its connection is closed': (stream, connections) => {
    stream.destroy();
    return connections.close();
  },
  'is destroyed while its connection closes': (stream, connections) => {
    const closed = connections.close();
    stream.destroy();
    return closed;
  },
  'is open when its connection is closed': (_stream, connections) => connections.close(),
  'is destroyed after the end of its input': (stream) => {
    stream.end(() => stream.destroy());
  },
  'has an ended input when its connection is closed': (stream, connections) => {
    stream.end();
    return connections.close();
  },
};

/** They print a line when they run, and do not end at the end of their input. */
const PROGRAMS: Record<string, (sleep: string) => string> = {
  'that sleeps': (sleep) => `echo ready; exec ${sleep}`,
  'that ignores TERM': (sleep) => `trap '' TERM; echo ready; ${sleep}; :`,
};

const TABLE = Object.keys(PROGRAMS).flatMap((program) =>
  Object.keys(ORDERS).flatMap((order) =>
    ['has just been started', 'runs'].map((state) => [program, state, order] as const),
  ),
);

describeOn('ssh', 'the program of an exec stream', () => {
  const { plain, jump, inner } = sshHosts();

  /** Starts a program, ends its stream, and waits until the host has no process of it. */
  async function endProgram(server: SshServer, program: string, isRunning: boolean, end: EndStream) {
    const sleep = `sleep 300.${randomInt(1e9, 1e10)}`;
    const command = PROGRAMS[program]?.(sleep) ?? '';
    const { connections } = openConnections();
    const stream = await connections.openExecStream(server, command, neverAborted());
    if (isRunning) await once(stream, 'data');
    await end(stream, connections);
    await stream.resume().ended;
    await until(
      () => listProcesses(server, sleep),
      (processes) => processes === '',
      3_000,
    );
  }

  /** @param pattern is also searched in the command lines of shells that have not yet started the program. */
  async function listProcesses(server: SshServer, pattern: string): Promise<string> {
    const { connections } = openConnections();
    const command = `pgrep -af '[${pattern[0]}]${pattern.slice(1)}'`;
    const stream = await connections.openExecStream(server, command, neverAborted());
    stream.end();
    return await text(stream);
  }

  it.each(TABLE)('%s and %s is ended when the stream %s', async (program, state, order) => {
    const end = ORDERS[order];
    if (end === undefined) throw new Error('no such order');
    await endProgram(serverAt(plain), program, state === 'runs', end);
  });

  it('is ended behind a jump server before the connection to that server is closed', async () => {
    const jumpServer = serverAt(jump, {}, { serverId: 'jump' });
    const behind = serverAt(inner, { jump: 'jump' }, { jumpServers: new Map([['jump', jumpServer]]) });
    await endProgram(behind, 'that ignores TERM', true, (_stream, connections) => connections.close());
  });
});

describe('an exec stream', () => {
  it.each([
    ['its signal is aborted', (stop: AbortController) => stop.abort(new Error('left')), 'left'],
    [
      'its connection is closed',
      (_stop: AbortController, connections: SshConnections) => void connections.close(),
      'lost',
    ],
  ])('kills a program that starts while %s', async (_name, end, message) => {
    const stop = new AbortController();
    const { connections } = openConnections();
    const { promise: signalled, resolve } = Promise.withResolvers<string>();
    const server = await startScriptedServer({
      // The client gets the server's answer later.
      exec: () => end(stop, connections),
      onSignal: (name, channel) => {
        channel.exit(name);
        channel.end();
        resolve(name);
      },
    });
    const opened = connections.openExecStream(serverAt(server, login), 'true', stop.signal);
    await expect(opened).rejects.toThrow(message);
    expect(await signalled).toBe('KILL');
  });

  it('repeats its signal, which OpenSSH drops while the program starts', async () => {
    const { connections } = openConnections();
    let signals = 0;
    const server = await startScriptedServer({
      onSignal: (name, channel) => {
        signals += 1;
        if (signals === 1) return;
        channel.exit(name);
        channel.end();
      },
    });
    const stream = await connections.openExecStream(serverAt(server, login), 'true', neverAborted());
    await connections.close();
    expect(await stream.ended).toMatchObject({ signal: expect.stringContaining('KILL') });
  });

  it('is closed for a server that does not report the exit of its program', async () => {
    const { connections } = openConnections();
    const server = await startScriptedServer({ exec: () => undefined });
    const stream = await connections.openExecStream(serverAt(server, login), 'true', neverAborted());
    stream.destroy();
    expect(await stream.ended).toMatchObject({ code: null, signal: null });
  });

  it.each([
    ['exit code', 3, { code: 3, signal: null }],
    ['signal', 'KILL', { code: null, signal: expect.stringContaining('KILL') }],
  ])('reports the %s of a program that ends at once', async (_name, exit, status) => {
    const { connections } = openConnections();
    const server = await startScriptedServer({
      // The client reads all of this at once, with the answer that the program was started.
      exec: (channel) => {
        channel.stderr.write('wrong');
        channel.exit(exit as number);
        channel.end();
      },
    });
    const stream = await connections.openExecStream(serverAt(server, login), 'true', neverAborted());
    expect(await stream.resume().ended).toEqual({ ...status, stderr: 'wrong' });
  });
});
