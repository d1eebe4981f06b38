import { describe, expect, it } from '@jest/globals';
import { text } from 'node:stream/consumers';
import type { ServerChannel } from 'ssh2';
import { dockerConfig } from '../../../src/runners/docker/config.ts';
import { DialError } from '../../../src/runners/docker/dial-error.ts';
import { openDialStream } from '../../../src/runners/docker/dial-stream.ts';
import { startScriptedServer, type ScriptedServer } from '../../lib/ssh/scripted-server.ts';
import { neverAborted, openConnections } from '../../lib/ssh/servers.ts';
import { until } from '../../support/until.ts';
import { createSshTarget } from './ssh-server-with-docker.ts';
import { createTarget } from './test-engine.ts';

/** Opens a stream to the engine of the server. @param signal undefined: it is aborted by the first output. */
function openStream(server: ScriptedServer, signal: AbortSignal | undefined) {
  const { connections } = openConnections();
  const sshTarget = createSshTarget(server);
  const jumpServers = new Map([['ssh-1', sshTarget]]);
  const target = createTarget(dockerConfig.parse({ host: 'ssh-1' }), { jumpServers });
  const stop = new AbortController();
  const ssh: Parameters<typeof openDialStream>[0] = {
    async openExecStream(...args) {
      const stream = await connections.openExecStream(...args);
      stream.once('data', () => stop.abort(new Error('left')));
      return stream;
    },
    release: (serverId) => connections.release(serverId),
  };
  return { connections, opened: openDialStream(ssh, sshTarget, target, signal ?? stop.signal) };
}

/** The nonce in a command. */
const findMarker = (command: string) => / ([0-9a-f]{32}) /.exec(command)?.[1] ?? '';

describe('a stream to docker over SSH', () => {
  it.each([1, 7, 33, 1_000])('begins after the nonce, in chunks of %d bytes', async (size) => {
    let received = '';
    let marker = '';
    const server = await startScriptedServer({
      exec: (channel, command) => {
        marker = findMarker(command);
        channel.on('data', (chunk: Buffer) => {
          received += chunk.toString();
          if (!received.endsWith('request')) return;
          channel.exit(0);
          channel.end();
        });
        const output = `welcome\n\x1e${marker.slice(0, 9)}\n${marker}\n\x1e${marker}\nanswer\x1e`;
        for (let offset = 0; offset < output.length; offset += size)
          channel.write(output.slice(offset, offset + size));
      },
    });
    const stream = await openStream(server, neverAborted()).opened;
    stream.write('request');
    expect(await text(stream)).toBe('answer\x1e');
    expect(received).toBe(`${marker}\nrequest`);
    expect(await stream.findEndError?.()).toBeUndefined();
  });

  const failures: [what: string, behave: (channel: ServerChannel) => void, message: RegExp][] = [
    [
      'ends',
      (channel) => channel.stderr.write('bash: line 1: exec: sh: not found\n'),
      /did not run docker: the account may have no shell .* It printed: bash: line 1: exec: sh: not found$/,
    ],
    [
      'may start no process',
      (channel) => channel.stderr.write('bash: fork: Resource temporarily unavailable\n'),
      /may start no more processes on the SSH server \(ulimit -u\)/,
    ],
    ['ends without a text', () => undefined, /did not run docker: the account may have no shell [^:]*$/],
  ];
  it.each(failures)(
    'fails with the cause when the account %s before the nonce',
    async (_what, behave, message) => {
      const server = await startScriptedServer({
        exec: (channel) => {
          behave(channel);
          channel.exit(127);
          channel.end();
        },
      });
      const { connections, opened } = openStream(server, neverAborted());
      const error = await opened.catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(DialError);
      expect(error).toMatchObject({ testStatus: 'error', message: expect.stringMatching(message) });
      // A connection that stays open would keep the account's old groups and the server's old configuration.
      await until(
        () => connections.listOwners(),
        (owners) => owners.length === 0,
      );
    },
  );

  it.each([
    ['more output than start files print precedes the nonce', neverAborted(), 70_000, 'print too much'],
    ['its signal is aborted before the nonce', undefined, 1, 'left'],
  ])('ends the program when %s', async (_what, signal, length, message) => {
    const closed = Promise.withResolvers<undefined>();
    const server = await startScriptedServer({
      exec: (channel) => {
        channel.resume().once('close', () => closed.resolve(undefined));
        channel.write('x'.repeat(length));
      },
    });
    await expect(openStream(server, signal).opened).rejects.toThrow(message);
    await closed.promise;
  });
});
