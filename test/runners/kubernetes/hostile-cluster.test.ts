import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Dialer } from '../../../src/lib/net/dialer.ts';
import { createKubernetesRunner } from '../../../src/runners/kubernetes/index.ts';
import { createClusterApi, type ClusterApi } from '../../../src/runners/kubernetes/api.ts';
import { startExec, type Exec } from '../../../src/runners/kubernetes/exec.ts';
import { removeRunPods } from '../../../src/runners/kubernetes/cleanup.ts';
import { waitForPod } from '../../../src/runners/kubernetes/wait-for-pod.ts';
import { until } from '../../support/until.ts';
import { localDialer, createTarget } from './test-cluster.ts';
import {
  acceptWebSocket,
  frame,
  podJson,
  startHostileCluster,
  type HostileCluster,
} from './hostile-cluster.ts';

const V5 = 'v5.channel.k8s.io';
const neverAborted = new AbortController().signal;

let dialer: Dialer;
let hostile: HostileCluster;
let api: ClusterApi;

beforeEach(async () => {
  dialer = localDialer();
  hostile = await startHostileCluster();
  api = createClusterApi(dialer, hostile.access);
});
afterEach(async () => {
  await api.close();
  await dialer.close();
  await hostile.close();
});

/** Writes the same chunk repeatedly until the stream closes. */
function writeForever(stream: Duplex | ServerResponse, chunk: string | Buffer): void {
  const write = () => {
    while (!stream.destroyed && stream.write(chunk));
  };
  stream.on('drain', write);
  write();
}

describe('responses of a hostile cluster', () => {
  it('are cut off if the body is endless', async () => {
    let closed = false;
    hostile.respond = (request, response) => {
      request.socket.on('close', () => (closed = true));
      writeForever(response, ' '.repeat(65_536));
    };
    await expect(api.listPods('a=b')).rejects.toMatchObject({ kind: 'malformed' });
    await until(() => closed, Boolean);
  });

  it('are cut off if the headers are endless', async () => {
    hostile.respond = (request) => {
      request.socket.write('HTTP/1.1 200 OK\r\n');
      writeForever(request.socket, `x-header: ${'x'.repeat(1000)}\r\n`);
    };
    await expect(api.listPods('a=b')).rejects.toMatchObject({ kind: 'unreachable' });
  });

  it('are not followed to another address, which receives no token', async () => {
    const other = await startHostileCluster();
    const location = `${other.access.server.href}api`;
    hostile.respond = (_request, response) => response.writeHead(307, { location }).end();
    await expect(api.findPod('pod')).rejects.toMatchObject({ kind: 'malformed' });
    hostile.onUpgrade = (socket) => socket.end(`HTTP/1.1 302 Found\r\nlocation: ${location}\r\n\r\n`);
    await expect(exec()).rejects.toMatchObject({ name: 'ClusterError' });
    expect(other.requests).toEqual([]);
    await other.close();
  });

  const invalidBodies: [what: string, body: string][] = [
    ['an HTML page', '<html>'],
    ['JSON of another shape', '{"items": 7}'],
    ['deeply nested lists', `{"items": ${'['.repeat(100_000)}`],
    ['names that are not text', JSON.stringify({ items: [{ metadata: { name: { toString: 1 } } }] })],
  ];
  for (const [what, body] of invalidBodies) {
    it(`are refused if they are ${what}`, async () => {
      hostile.respond = (_request, response) => response.end(body);
      await expect(api.listPods('a=b')).rejects.toMatchObject({ kind: 'malformed' });
    });
  }

  it('are never shown to users', async () => {
    for (const status of [400, 401, 403, 404, 409, 422, 429, 500]) {
      const message = 'exceeded: <b>call 555-1234</b>';
      hostile.respond = (_request, response) => response.writeHead(status).end(JSON.stringify({ message }));
      const error: unknown = await api.listPods('a=b').catch((failure: unknown) => failure);
      expect(error).toMatchObject({ name: 'ClusterError' });
      expect((error as Error).message).not.toContain('555');
    }
  });

  it('cannot redirect a request with the name of a pod', async () => {
    hostile.respond = (request, response) => {
      if (request.method === 'GET') response.end(JSON.stringify({ items: [podJson('../../nodes/one?x=')] }));
      else response.writeHead(404).end('{}');
    };
    await removeRunPods(api, 'run');
    expect(hostile.requests.at(-1)).toBe('DELETE /api/v1/namespaces/jobs/pods/..%2F..%2Fnodes%2Fone%3Fx%3D');
  });
});

describe('watches on a hostile cluster', () => {
  /** The pod itself never changes; the test defines its watch. */
  function watched(watch: (response: ServerResponse) => void): void {
    hostile.respond = (request: IncomingMessage, response) => {
      if (request.url?.includes('watch=true') === true) watch(response);
      else response.end(JSON.stringify(podJson('pod', {})));
    };
  }
  const wait = (signal = neverAborted) => waitForPod(api, 'pod', () => undefined, signal);

  it('are cut off if a line is endless', async () => {
    watched((response) => {
      writeForever(response, 'x'.repeat(65_536));
    });
    await expect(wait()).rejects.toMatchObject({ kind: 'malformed' });
  });

  it('are cut off if they repeat an event forever', async () => {
    const event = JSON.stringify({ type: 'MODIFIED', object: podJson('pod', {}) });
    watched((response) => {
      writeForever(response, `${event}\n`.repeat(100));
    });
    await expect(wait()).rejects.toMatchObject({ kind: 'malformed' });
  });

  it('end with the signal if they send nothing', async () => {
    const stop = new AbortController();
    watched((response) => {
      response.flushHeaders();
      stop.abort(new Error('enough'));
    });
    await expect(wait(stop.signal)).rejects.toThrow('enough');
  });
});

describe('a command on a hostile cluster', () => {
  it('is refused over another protocol', async () => {
    hostile.onUpgrade = (socket, request) => {
      acceptWebSocket(socket, request, 'v4.channel.k8s.io');
    };
    await expect(exec()).rejects.toThrow('Kubernetes 1.30');
  });

  const invalidMessages: [what: string, bytes: Buffer][] = [
    ['a message that claims four gigabytes', Buffer.of(0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0, 1)],
    [
      'a message of two megabytes',
      Buffer.concat([Buffer.of(0x82, 127, 0, 0, 0, 0, 0, 32, 0, 0), Buffer.alloc(2_097_152, 1)]),
    ],
    ['a compressed message', Buffer.of(0xc2, 2, 1, 1)],
    ['a masked message', Buffer.of(0x82, 0x82, 0, 0, 0, 0, 1, 1)],
    ['a close frame without a status', Buffer.of(0x88, 0)],
    ['a status that is not JSON', frame(3, 'Success')],
    [
      'a failure without an exit code',
      frame(3, JSON.stringify({ status: 'Failure', reason: 'InternalError' })),
    ],
    [
      'a missing exit code',
      frame(3, JSON.stringify({ status: 'Failure', reason: 'NonZeroExitCode', details: { causes: [] } })),
    ],
    ['an invalid exit code', exitCodeFrame('256')],
    ['text for unknown channels', Buffer.concat([frame(9, 'x'), frame(255, '\u0001'), Buffer.of(0x88, 0)])],
  ];
  for (const [what, bytes] of invalidMessages) {
    it(`ends without an exit code for ${what}`, async () => {
      hostile.onUpgrade = (socket, request) => {
        acceptWebSocket(socket, request, V5);
        socket.write(bytes);
      };
      const command = await exec();
      expect(await readAllOutput(command)).toBe('');
      expect(command.code()).toBeUndefined();
    });
  }

  it('is paused if its output is not read, also for single bytes', async () => {
    let sentBytes = 0;
    const chunk = Buffer.concat(Array.from({ length: 10_000 }, () => frame(1, 'x')));
    hostile.onUpgrade = (socket, request) => {
      acceptWebSocket(socket, request, V5);
      const write = () => {
        let canWrite = true;
        while (canWrite && !socket.destroyed) {
          canWrite = socket.write(chunk);
          sentBytes += chunk.length;
        }
      };
      socket.on('drain', write);
      write();
    };
    const command = await exec();
    let beforeBytes = -1;
    let unchangedChecks = 0;
    await until(() => {
      unchangedChecks = beforeBytes === sentBytes ? unchangedChecks + 1 : 0;
      beforeBytes = sentBytes;
      return unchangedChecks > 10;
    });
    // No more than fits into the buffers of two sockets.
    expect(sentBytes).toBeLessThan(32 * 1024 * 1024);
    command.close();
    let remaining = 0;
    for await (const _message of command.output()) remaining += 1;
    expect(remaining).toBeLessThan(100_000);
  });

  it('is requested without compression, which could expand small messages', async () => {
    let extensions: string | undefined = 'no request';
    hostile.onUpgrade = (socket, request) => {
      extensions = request.headers['sec-websocket-extensions'];
      acceptWebSocket(socket, request, V5);
    };
    const command = await exec();
    expect(extensions).toBeUndefined();
    command.close();
  });
});

describe('a run on a hostile cluster', () => {
  it('reports cleanup as unverified while its pod is still listed', async () => {
    hostile.respond = (request, response) => {
      if (request.url?.includes('watch=true') === true) response.flushHeaders();
      else response.end(JSON.stringify(podJson('pod')));
    };
    hostile.onUpgrade = (socket, request) => {
      acceptWebSocket(socket, request, V5);
      const nonce = new URL(request.url ?? '', 'https://cluster').searchParams.getAll('command').at(-1);
      socket.write(frame(2, `\x1e${nonce ?? ''}started\n`));
    };
    const { server, ca, namespace, token } = hostile.access;
    const config = {
      ...{ cluster_url: server.href, ca_cert: ca, namespace, service_account_token: token },
      ...{ kubeconfig: null, image: 'image', setup: null },
    };
    const stop = new AbortController();
    const job = {
      runId: 'run',
      program: { command: 'true' },
      stdin: null,
      files: [],
      env: {},
      workdir: null,
    };
    const limits = {
      timeoutMs: 1000,
      maxOutputBytes: 1000,
      memoryBytes: null,
      cpus: null,
      pids: null,
      network: null,
    };
    const runner = createKubernetesRunner({ dialer });
    const events = [];
    for await (const event of runner.run(createTarget('server', config), job, limits, stop.signal)) {
      events.push(event);
      if (event.type === 'phase' && event.phase === 'started') stop.abort('timeout');
    }
    expect(events.at(-1)).toMatchObject({
      type: 'exit',
      cause: 'timeout',
      code: null,
      cleanup: 'unverified',
    });
    await runner.close();
  }, 60_000);
});

function exitCodeFrame(message: string): Buffer {
  const details = { causes: [{ reason: 'ExitCode', message }] };
  return frame(3, JSON.stringify({ status: 'Failure', reason: 'NonZeroExitCode', details }));
}

function exec(): Promise<Exec> {
  return startExec(api, 'pod', ['true'], Buffer.alloc(0), neverAborted);
}

async function readAllOutput(command: Exec): Promise<string> {
  let text = '';
  for await (const { data } of command.output()) text += data.toString();
  return text;
}
