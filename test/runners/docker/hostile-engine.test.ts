import type { Socket } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import { createEngineWithConnector, type Engine } from '../../../src/runners/docker/engine.ts';
import { runDockerJob } from '../../../src/runners/docker/run.ts';
import { openDockerSession } from '../../../src/runners/docker/session.ts';
import { dockerConfig } from '../../../src/runners/docker/config.ts';
import { localDialer } from '../../lib/ssh/servers.ts';
import type { Limits } from '../../../src/runners/runner.ts';
import { LOOPBACK, startTcpUpstream } from '../../support/local-upstreams.ts';
import { NO_LIMITS, afterThisTest, createJob, readOutcome, createTarget } from './test-engine.ts';

const MIB = 2 ** 20;
/** What is read before an engine is left, and what lies between at most. */
const MAX_READ_BYTES = 32 * MIB;
const ID = 'a'.repeat(64);
const never = new AbortController().signal;

/** What an engine says to the requests whose paths hold a text. */
type Responses = readonly (readonly [path: string, answer: (socket: Socket) => unknown])[];

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
/** A frame of output, and its end. */
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

/** Writes a piece again and again, as long as the other end takes it, and tells how many bytes have gone. */
function endless(socket: Socket, piece: Buffer | string, onWritten?: (bytes: number) => void): void {
  let bytes = 0;
  const write = () => {
    while (!socket.destroyed && socket.write(piece)) bytes += piece.length;
    onWritten?.(bytes);
  };
  socket.on('drain', write);
  write();
}

/** A server that speaks like an engine, but for `manners`. What it was asked is listed: methods and paths. */
async function startEngine(manners: Responses): Promise<{ engine: Engine; asked: string[] }> {
  const rules = [...manners, ...DEFAULT_RESPONSES];
  const asked: string[] = [];
  const upstream = await startTcpUpstream((socket) => {
    let isRaw = false;
    socket.on('data', (data: Buffer) => {
      if (isRaw) return;
      const [line = ''] = data.toString('latin1').split('\r\n');
      if (!/^(GET|POST|DELETE) /.test(line)) return;
      asked.push(line);
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
  return { engine, asked };
}

const target = createTarget(dockerConfig.parse({ host: 'srv', image: 'busybox' }));

function runOn(engine: Engine, signal = never, limits = NO_LIMITS) {
  const place = {
    engine,
    target,
    heartbeatMs: 60_000,
    openJobSession: (limits: Limits, runId: string, phase: AbortSignal) =>
      openDockerSession(engine, { target, limits, purpose: 'run', name: 'run', runId, instance: 'x' }, phase),
    openCleanupSession: () => Promise.reject(new Error('not asked for')),
    onStarted: () => undefined,
  };
  return runDockerJob(place, createJob('true'), limits, signal);
}

describe('an engine that means harm', () => {
  for (const [what, path, answer] of [
    ['answers without end', '/_ping', `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n`],
    ['sends headers without end', '/_ping', 'HTTP/1.1 200 OK\r\n'],
  ] as const) {
    it(`costs no memory when it ${what}`, async () => {
      const chunk = answer.includes('chunked')
        ? `100000\r\n${'x'.repeat(MIB)}\r\n`
        : `x: ${'y'.repeat(1000)}\r\n`;
      let taken = 0;
      const { engine } = await startEngine([
        [
          path,
          (socket) => {
            socket.write(answer);
            endless(socket, chunk, (bytes) => {
              taken = bytes;
            });
          },
        ],
      ]);
      await expect(engine.ping()).rejects.toMatchObject({
        code: expect.stringMatching(/^upstream_(malformed|unreachable)$/),
      });
      // Most of it lies between, in no memory of this process.
      expect(taken).toBeLessThan(MAX_READ_BYTES);
    });
  }

  for (const [what, manners] of [
    ['answers with something else than JSON', [['/containers/create', respondWith(201, '<html>')]]],
    [
      'makes up ids that lead elsewhere',
      [['/containers/create', respondWith(201, { Id: '../../images/x' })]],
    ],
    [
      'does not hand over the connection',
      [['/attach', closeWith('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno')]],
    ],
    ['refuses to listen for the end', [['/wait', respondWith(500, { message: 'no' })]]],
    ['closes every connection', [['/', (socket: Socket) => socket.destroy()]]],
    ['sends no frames', [['/attach', attachThen((socket) => socket.write('text, and no frames'))]]],
    [
      'sends empty frames without end',
      [['/attach', attachThen((socket) => endless(socket, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])))]],
    ],
  ] as const) {
    it(`gets no job started when it ${what}`, async () => {
      const { engine } = await startEngine(manners);
      const { exit, stdout } = await readOutcome(runOn(engine));
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null });
      expect(exit.message).not.toMatch(/html|frames/);
      expect(stdout).toBe('');
    });
  }

  it('costs no memory by a frame that claims to hold 4 GB, and is held back by the reader', async () => {
    const header = Buffer.from([1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let taken = 0;
    const { engine } = await startEngine([
      [
        '/attach',
        (socket) => {
          attach(socket);
          socket.write(header);
          endless(socket, Buffer.alloc(64 * 1024), (bytes) => {
            taken = bytes;
          });
        },
      ],
    ]);
    const stop = new AbortController();
    const events = runOn(engine, stop.signal);
    while ((await events.next()).value?.type !== 'output');
    let before = -1;
    // Until what lies between is full: others come through, again and again, and nothing more of this.
    while (taken !== before && taken < MAX_READ_BYTES) {
      before = taken;
      for (let round = 0; round < 50; round += 1) await engine.ping();
    }
    expect(taken).toBeLessThan(MAX_READ_BYTES);
    stop.abort('cancelled');
    const { exit } = await readOutcome(events);
    expect(exit).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
  });

  it('that says that a job ended well, without a word of the job, is not believed', async () => {
    const { engine } = await startEngine([
      ['/attach', printHi],
      ['/wait', respondWith(200, { StatusCode: 0 })],
    ]);
    const { exit } = await readOutcome(runOn(engine));
    expect(exit).toMatchObject({ cause: 'lost', code: null });
  });

  it('that will not say how a job ended loses it', async () => {
    const { engine } = await startEngine([
      ['/attach', printHi],
      ['/wait', (socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"Status')],
    ]);
    const { exit, stdout } = await readOutcome(runOn(engine));
    expect(stdout).toBe('hi');
    expect(exit).toMatchObject({ cause: 'lost', code: null });
  });

  it('that goes on showing a container that it should have removed is not believed to have removed it', async () => {
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

  it('that pulls without end is left with the signal, and a line without end is not read', async () => {
    const pulls = (chunk: string, onWritten?: (bytes: number) => void) => (socket: Socket) => {
      socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
      endless(socket, chunk, onWritten);
    };
    const stop = new AbortController();
    // More than what lies between can hold: it is being read.
    const stopWhenRead = (bytes: number) => {
      if (bytes > 16 * MIB) stop.abort('timeout');
    };
    const image: Responses = [
      ['/containers/create', respondWith(404, { message: 'No such image: busybox' })],
    ];
    const line = `${JSON.stringify({ status: 'x'.repeat(5_000) })}\n`;
    const patient = await startEngine([
      ...image,
      ['/images/create', pulls(`${line.length.toString(16)}\r\n${line}\r\n`, stopWhenRead)],
    ]);
    expect((await readOutcome(runOn(patient.engine, stop.signal))).exit.cause).toBe('timeout');
    const long = await startEngine([
      ...image,
      ['/images/create', pulls(`10000\r\n${'x'.repeat(65_536)}\r\n`)],
    ]);
    expect((await readOutcome(runOn(long.engine))).exit).toMatchObject({ cause: 'infrastructure' });
  });
});

describe('an engine that cannot keep a limit', () => {
  const NO_CGROUP = 'or the cgroup is not mounted.';
  const warns = (...warnings: string[]): Responses => [
    ['/containers/create', respondWith(201, { Id: ID, Warnings: warnings })],
    ['/attach', printHi],
    ['/wait', respondWith(200, { StatusCode: 0 })],
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
    it(`runs nothing in a container without its limit of ${name}, and removes it`, async () => {
      const { engine, asked } = await startEngine(warns(...warnings));
      const { exit, stdout } = await readOutcome(runOn(engine));
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
      expect(exit.message).toContain(`cannot limit ${name}, `);
      expect(exit.message).not.toMatch(/kernel|discarded/);
      expect(stdout).toBe('');
      expect(asked.filter((line) => line.includes('/start'))).toEqual([]);
      expect(asked).toContainEqual(expect.stringMatching(/^DELETE \/containers\/run\?/));
    });
  }

  it('runs a container whose memory is limited without its swap, and others that lack nothing', async () => {
    const { engine, asked } = await startEngine(
      warns(
        `${swap} Memory limited without swap.`,
        `${swap} Limitation discarded.`,
        'IPv4 forwarding is disabled. Networking will not work.',
        'Your kernel does not support cgroup namespaces.  Cgroup namespace setting discarded.',
      ),
    );
    expect((await readOutcome(runOn(engine))).stdout).toBe('hi');
    expect(asked).toContainEqual(expect.stringContaining('/start'));
  });

  it('is named when it refuses the limit itself', async () => {
    const message = 'NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler';
    const { engine } = await startEngine([['/containers/create', respondWith(400, { message })]]);
    const { exit } = await readOutcome(runOn(engine, never, { ...NO_LIMITS, cpus: 1 }));
    expect(exit.message).toMatch(/^The engine cannot limit CPUs, /);
  });

  it('that warns without end is not believed', async () => {
    const { engine, asked } = await startEngine(warns(...Array.from({ length: 65 }, () => 'x')));
    expect((await readOutcome(runOn(engine))).exit).toMatchObject({ cause: 'infrastructure' });
    expect(asked).toContainEqual(expect.stringMatching(/^DELETE \/containers\/run\?/));
  });
});
