import type { Socket } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import { createEngineWithConnector, type Engine } from '../../../src/runners/docker/engine.ts';
import { runDockerJob } from '../../../src/runners/docker/run.ts';
import { openDockerSession } from '../../../src/runners/docker/session.ts';
import { dockerConfig } from '../../../src/runners/docker/config.ts';
import { localDialer } from '../../lib/ssh/servers.ts';
import type { Limits } from '../../../src/runners/runner.ts';
import { LOOPBACK, startTcpUpstream } from '../../support/local-upstreams.ts';
import {
  NO_LIMITS,
  afterThisTest,
  createJob,
  createTarget,
  readOutcome,
  readUntilOutput,
} from './test-engine.ts';

const MIB = 2 ** 20;
/** Maximum number of bytes that an engine can send before it is cut off, including socket buffers. */
const MAX_WRITTEN_BYTES = 32 * MIB;
const ID = 'a'.repeat(64);
const neverAborted = new AbortController().signal;

/** Responses of an engine by a text in the request line. */
type Responses = readonly (readonly [path: string, respond: (socket: Socket) => unknown])[];

const respondWith = (status: number, body: unknown) => (socket: Socket) => {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  socket.write(`HTTP/1.1 ${status} X\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
};
const attach = (socket: Socket) => {
  socket.write('HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n');
};
const closeWith = (text: string | Buffer) => (socket: Socket) => socket.end(text);
const attachThen = (then: (socket: Socket) => unknown) => (socket: Socket) => {
  attach(socket);
  then(socket);
};
/** Sends one frame of output and ends the stream. */
const printHi = attachThen((socket) => socket.end(Buffer.from([1, 0, 0, 0, 0, 0, 0, 2, 104, 105])));
const DEFAULT_RESPONSES: Responses = [
  ['/containers/create', respondWith(201, { Id: ID })],
  ['/attach', attach],
  ['/wait', (socket) => socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n')],
  ['/start', respondWith(204, '')],
  ['/containers/json', respondWith(200, [])],
  ['/json', respondWith(404, {})],
  ['DELETE', respondWith(204, '')],
  ['/_ping', respondWith(200, 'OK')],
];

/** Lists the container of a run until it is removed. */
function listUntilRemoved(isCreated = () => true): Responses {
  let isRemoved = false;
  const listed = [{ Id: ID, State: 'created', Created: 0 }];
  return [
    ['/containers/json', (socket) => respondWith(200, isRemoved || !isCreated() ? [] : listed)(socket)],
    [
      'DELETE',
      (socket) => {
        isRemoved = true;
        respondWith(204, '')(socket);
      },
    ],
  ];
}

/** Writes the chunk repeatedly until the socket closes. Reports the number of written bytes. */
function writeEndlessly(socket: Socket, chunk: Buffer | string, onWritten?: (bytes: number) => void): void {
  let bytes = 0;
  const write = () => {
    while (!socket.destroyed && socket.write(chunk)) bytes += chunk.length;
    onWritten?.(bytes);
  };
  socket.on('drain', write);
  write();
}

/**
 * Starts a server that behaves like an engine except for `responses`. `requestLines` lists the received
 * requests.
 */
async function startEngine(responses: Responses): Promise<{ engine: Engine; requestLines: string[] }> {
  const rules = [...responses, ...DEFAULT_RESPONSES];
  const requestLines: string[] = [];
  const upstream = await startTcpUpstream((socket) => {
    let isRaw = false;
    socket.on('data', (data: Buffer) => {
      if (isRaw) return;
      const [line = ''] = data.toString('latin1').split('\r\n');
      if (!/^(GET|POST|DELETE) /.test(line)) return;
      requestLines.push(line);
      isRaw = line.includes('/attach');
      rules.find(([path]) => line.includes(path))?.[1]?.(socket);
    });
  });
  const dialer = localDialer();
  const engine = createEngineWithConnector((signal) => dialer.connect(LOOPBACK, upstream.port, signal), {
    host: 'engine.test',
    port: 443,
  });
  afterThisTest(async () => {
    engine.close();
    await dialer.close();
  });
  return { engine, requestLines };
}

const target = createTarget(dockerConfig.parse({ host: 'srv', image: 'busybox' }));

function runOn(engine: Engine, signal = neverAborted, limits = NO_LIMITS) {
  const deps = {
    engine,
    target,
    heartbeatMs: 60_000,
    openJobSession: (limits: Limits, runId: string, phase: AbortSignal) =>
      openDockerSession(engine, { target, limits, purpose: 'run', name: 'run', runId, instance: 'x' }, phase),
    openCleanupSession: () => Promise.reject(new Error('not expected')),
    onStarted: () => undefined,
  };
  return runDockerJob(deps, createJob('true'), limits, signal);
}

describe('a hostile engine', () => {
  for (const [what, path, answer] of [
    ['sends an endless body', '/_ping', `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n`],
    ['sends endless headers', '/_ping', 'HTTP/1.1 200 OK\r\n'],
  ] as const) {
    it(`uses no memory if it ${what}`, async () => {
      const chunk = answer.includes('chunked')
        ? `100000\r\n${'x'.repeat(MIB)}\r\n`
        : `x: ${'y'.repeat(1000)}\r\n`;
      let writtenBytes = 0;
      const { engine } = await startEngine([
        [
          path,
          (socket) => {
            socket.write(answer);
            writeEndlessly(socket, chunk, (bytes) => {
              writtenBytes = bytes;
            });
          },
        ],
      ]);
      await expect(engine.ping()).rejects.toMatchObject({
        code: expect.stringMatching(/^upstream_(malformed|unreachable)$/),
      });
      // Most of it is in socket buffers outside this process.
      expect(writtenBytes).toBeLessThan(MAX_WRITTEN_BYTES);
    });
  }

  for (const [what, responses] of [
    ['responds with something other than JSON', [['/containers/create', respondWith(201, '<html>')]]],
    ['reports an id with a path in it', [['/containers/create', respondWith(201, { Id: '../../images/x' })]]],
    [
      'does not upgrade the connection',
      [['/attach', closeWith('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno')]],
    ],
    ['refuses to wait for the exit', [['/wait', respondWith(500, { message: 'no' })]]],
    ['closes every connection', [['/', (socket: Socket) => socket.destroy()]]],
    ['sends no frames', [['/attach', attachThen((socket) => socket.write('text, and no frames'))]]],
    [
      'sends endless empty frames',
      [['/attach', attachThen((socket) => writeEndlessly(socket, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])))]],
    ],
  ] as const) {
    it(`starts no job if it ${what}`, async () => {
      const { engine } = await startEngine(responses);
      const { exit, stdout } = await readOutcome(runOn(engine));
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null });
      expect(exit.message).not.toMatch(/html|frames/);
      expect(stdout).toBe('');
    });
  }

  it('uses no memory for a frame that claims 4 GB, and is paused by a slow reader', async () => {
    const header = Buffer.from([1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let writtenBytes = 0;
    const { engine } = await startEngine([
      [
        '/attach',
        (socket) => {
          attach(socket);
          socket.write(header);
          writeEndlessly(socket, Buffer.alloc(64 * 1024), (bytes) => {
            writtenBytes = bytes;
          });
        },
      ],
    ]);
    const stop = new AbortController();
    const events = runOn(engine, stop.signal);
    await readUntilOutput(events);
    let previousBytes = -1;
    // Until the socket buffers are full: other requests pass, and no more of this output.
    while (writtenBytes !== previousBytes && writtenBytes < MAX_WRITTEN_BYTES) {
      previousBytes = writtenBytes;
      for (let round = 0; round < 50; round += 1) await engine.ping();
    }
    expect(writtenBytes).toBeLessThan(MAX_WRITTEN_BYTES);
    stop.abort('cancelled');
    const { exit } = await readOutcome(events);
    expect(exit).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
  });

  it('loses a run for which the engine reports code 0 without a marker of the job', async () => {
    const { engine } = await startEngine([
      ['/attach', printHi],
      ['/wait', respondWith(200, { StatusCode: 0 })],
    ]);
    const { exit } = await readOutcome(runOn(engine));
    expect(exit).toMatchObject({ cause: 'lost', code: null });
  });

  it('loses a run if the engine does not report its exit', async () => {
    const { engine } = await startEngine([
      ['/attach', printHi],
      ['/wait', (socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"Status')],
    ]);
    const { exit, stdout } = await readOutcome(runOn(engine));
    expect(stdout).toBe('hi');
    expect(exit).toMatchObject({ cause: 'lost', code: null });
  });

  it('reports cleanup as unverified while the container is still listed', async () => {
    const { engine } = await startEngine([
      ['/attach', printHi],
      ['/wait', respondWith(200, { StatusCode: 1 })],
      [
        `GET /containers/${ID}/json`,
        respondWith(200, { State: { Running: true, OOMKilled: false, ExitCode: 0 } }),
      ],
    ]);
    const { exit } = await readOutcome(runOn(engine));
    expect(exit.cleanup).toBe('unverified');
  });

  it('stops an endless pull with the signal, and refuses an endless line', async () => {
    const sendProgress = (chunk: string, onWritten?: (bytes: number) => void) => (socket: Socket) => {
      socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
      writeEndlessly(socket, chunk, onWritten);
    };
    const stop = new AbortController();
    // More than the socket buffers hold, so the client is reading it.
    const stopWhenRead = (bytes: number) => {
      if (bytes > 16 * MIB) stop.abort('timeout');
    };
    const missingImage: Responses = [
      ['/containers/create', respondWith(404, { message: 'No such image: busybox' })],
    ];
    const line = `${JSON.stringify({ status: 'x'.repeat(5_000) })}\n`;
    const endlessPull = await startEngine([
      ...missingImage,
      ['/images/create', sendProgress(`${line.length.toString(16)}\r\n${line}\r\n`, stopWhenRead)],
    ]);
    expect((await readOutcome(runOn(endlessPull.engine, stop.signal))).exit.cause).toBe('timeout');
    const endlessLine = await startEngine([
      ...missingImage,
      ['/images/create', sendProgress(`10000\r\n${'x'.repeat(65_536)}\r\n`)],
    ]);
    expect((await readOutcome(runOn(endlessLine.engine))).exit).toMatchObject({ cause: 'infrastructure' });
  });
});

describe('an engine that does not respond while a container is prepared', () => {
  for (const call of ['/containers/create', '/attach', '/wait', '/start']) {
    it(`does not delay the end of a stopped job (${call})`, async () => {
      const stop = new AbortController();
      const { engine } = await startEngine([[call, () => stop.abort('cancelled')], ...listUntilRemoved()]);
      const startMs = performance.now();
      const { exit } = await readOutcome(runOn(engine, stop.signal));
      expect(exit).toMatchObject({ cause: 'cancelled', code: null, cleanup: 'verified' });
      expect(performance.now() - startMs).toBeLessThan(10_000);
    });
  }

  it('removes a container that it has created after the job was stopped', async () => {
    const stop = new AbortController();
    let isCreated = false;
    const { engine, requestLines } = await startEngine([
      [
        '/containers/create',
        (socket) => {
          stop.abort('cancelled');
          setTimeout(() => {
            isCreated = true;
            respondWith(201, { Id: ID })(socket);
          }, 500);
        },
      ],
      ...listUntilRemoved(() => isCreated),
    ]);
    const { exit } = await readOutcome(runOn(engine, stop.signal));
    expect(exit).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    expect(requestLines).toContainEqual(expect.stringContaining(`DELETE /containers/${ID}?`));
    expect(requestLines.filter((line) => line.includes('/attach'))).toEqual([]);
  });
});

describe('an engine without support for a limit', () => {
  const NO_CGROUP = 'or the cgroup is not mounted.';
  const createWithWarnings = (...warnings: string[]): Responses => [
    ['/containers/create', respondWith(201, { Id: ID, Warnings: warnings })],
    ['/attach', printHi],
    ['/wait', respondWith(200, { StatusCode: 0 })],
    ...listUntilRemoved(),
  ];
  const memory = `Your kernel does not support memory limit capabilities ${NO_CGROUP} Limitation discarded.`;
  const pids = `Your kernel does not support PIDs limit capabilities ${NO_CGROUP} PIDs limit discarded.`;
  const cpus = 'Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.';
  const swap = `Your kernel does not support swap limit capabilities ${NO_CGROUP}`;

  for (const [name, warnings] of [
    ['memory', [memory]],
    ['processes', [pids]],
    ['CPUs', [cpus]],
    ['processes, memory', [`${swap} Memory limited without swap.`, pids, memory]],
    ['what a container may use', ['Your kernel does not support fairness. Fairness discarded.']],
  ] as const) {
    it(`does not use a container that lacks its limit of ${name}, and removes it`, async () => {
      const { engine, requestLines } = await startEngine(createWithWarnings(...warnings));
      const { exit, stdout } = await readOutcome(runOn(engine));
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
      expect(exit.message).toContain(`cannot limit ${name}, `);
      expect(exit.message).not.toMatch(/kernel|discarded/);
      expect(stdout).toBe('');
      expect(requestLines.filter((line) => line.includes('/start'))).toEqual([]);
      expect(requestLines).toContainEqual(expect.stringContaining(`DELETE /containers/${ID}?`));
    });
  }

  it('uses a container with a memory limit but no swap limit, and ignores other warnings', async () => {
    const { engine, requestLines } = await startEngine(
      createWithWarnings(
        `${swap} Memory limited without swap.`,
        `${swap} Limitation discarded.`,
        'IPv4 forwarding is disabled. Networking will not work.',
        'Your kernel does not support cgroup namespaces.  Cgroup namespace setting discarded.',
      ),
    );
    expect((await readOutcome(runOn(engine))).stdout).toBe('hi');
    expect(requestLines).toContainEqual(expect.stringContaining('/start'));
  });

  it('names the limit if the engine refuses it', async () => {
    const message = 'NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler';
    const { engine } = await startEngine([['/containers/create', respondWith(400, { message })]]);
    const { exit } = await readOutcome(runOn(engine, neverAborted, { ...NO_LIMITS, cpus: 1 }));
    expect(exit.message).toMatch(/^The engine cannot limit CPUs, /);
  });

  it('refuses a response with too many warnings', async () => {
    const { engine, requestLines } = await startEngine(
      createWithWarnings(...Array.from({ length: 65 }, () => 'x')),
    );
    expect((await readOutcome(runOn(engine))).exit).toMatchObject({ cause: 'infrastructure' });
    expect(requestLines).toContainEqual(expect.stringContaining(`DELETE /containers/${ID}?`));
  });
});
