import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { once } from 'node:events';
import { chmod, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import path from 'node:path';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { findHiddenCharacter } from '../../../src/lib/visible-text.ts';
import { localDialer } from '../../lib/ssh/servers.ts';
import { describeOn, dockerHost, sshHosts } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import {
  createSshTarget,
  startSshServerWithDocker,
  type SshServerWithDocker,
} from './ssh-server-with-docker.ts';
import {
  afterThisTest,
  createConfig,
  createJob,
  createTarget,
  openRunner,
  runToExit,
} from './test-engine.ts';

jest.setTimeout(60_000);

type Case = [cause: string, prepare: () => Promise<unknown>, status: string, message: RegExp];

const owner = 'user:one' as const;
const ENVIRONMENT_SECRET = 'value-of-the-variable-XYZ';

describeOn('docker', 'a Docker server behind an SSH server without a usable engine', () => {
  const host = dockerHost();
  const itOverSsh = host.overSsh ? it : it.skip;
  let server: SshServerWithDocker;

  beforeAll(async () => {
    if (host.overSsh) server = await startSshServerWithDocker();
  });
  afterAll(async () => {
    if (host.overSsh) await server.stop();
  });

  function target() {
    const tls = { ca: null, client_cert: null, client_key: null };
    const environment = { VARIABLE: ENVIRONMENT_SECRET };
    const config = createConfig(host, { ...tls, host: 'ssh-1', image: host.smallImage, environment });
    return createTarget(config, { owner, jumpServers: new Map([['ssh-1', createSshTarget(server)]]) });
  }

  const test = () => openRunner().test(target(), new AbortController().signal);

  async function listen(): Promise<Server> {
    const listening = createServer().listen(server.socketPath);
    await once(listening, 'listening');
    return listening;
  }

  const print = (text: string, code: number) =>
    `printf '%s' '${text.replaceAll("'", `'\\''`)}' >&2; exit ${code}`;

  /** The texts are those of the real programs. */
  const cases: Case[] = [
    [
      'is missing',
      () => server.removeDocker(),
      'error',
      /finds no docker program: .* It printed: sh: .*docker: not found$/,
    ],
    ...[
      'sh: 1: exec: docker: not found',
      'sh: line 3: exec: docker: not found',
      'sh:3: command not found: docker',
      'sh: docker: not found',
    ].map((text): Case => [
      `is missing (${text})`,
      () => server.writeDocker(print(`${text}\n`, 1)),
      'error',
      /finds no docker program: /,
    ]),
    [
      'may not be executed',
      () => server.writeDocker('', 0o644),
      'forbidden',
      /may not execute the docker program\. It printed: .*Permission denied$/,
    ],
    [
      'is a client of 2017',
      () =>
        server.writeDocker(
          print('\nUsage:\tdocker system COMMAND\n\nManage Docker\n\nOptions:\n      --help\n', 1),
        ),
      'error',
      /has no `docker system dial-stdio`: .* It printed: Usage: docker system COMMAND$/,
    ],
    [
      'is a client of 2016',
      () => server.writeDocker(print("docker: 'system' is not a docker command.\nSee 'docker --help'.\n", 1)),
      'error',
      /has no `docker system dial-stdio`: .* It printed: docker: 'system' is not a docker command\.$/,
    ],
    [
      'does not know the command',
      () =>
        server.writeDocker(
          print('docker: unknown command: docker system dial-stdio\n\nUsage:  docker system\n', 1),
        ),
      'error',
      /has no `docker system dial-stdio`/,
    ],
    [
      'is an old podman',
      () =>
        server.writeDocker(
          print(
            'Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.\n' +
              "Error: unrecognized command `podman system dial-stdio`\nTry 'podman system --help' for more information.\n",
            125,
          ),
        ),
      'error',
      /has no `docker system dial-stdio`: .* It printed: Error: unrecognized command/,
    ],
    [
      'may not use the socket',
      async () => {
        await server.linkDocker(host.command);
        const listening = await listen();
        afterThisTest(() => new Promise((resolve) => listening.close(resolve)));
        await chmod(server.socketPath, 0o600);
      },
      'forbidden',
      /may not use Docker's socket: add it to the group docker.* It printed: .*permission denied$/,
    ],
    [
      'may not use the socket, and prints a warning first',
      () =>
        server.writeDocker(
          print(
            'WARNING: Error loading config file: open /home/a/.docker/config.json: permission denied\n' +
              'failed to open the raw stream connection: dial unix /run/docker.sock: connect: connection refused\n',
            1,
          ),
        ),
      'offline',
      /does not reach its engine: .* It printed: failed to open .* connection refused$/,
    ],
    [
      'finds no socket',
      () => server.linkDocker(host.command),
      'offline',
      /does not reach its engine: start the engine\. .*docker context use rootless.*DOCKER_HOST in a start file.* It printed: .*no such file or directory$/,
    ],
    [
      'is podman without its service',
      () =>
        server.writeDocker(
          print(
            'Error: failed to open connection to podman: unable to connect to Podman socket: Get ' +
              '"http://d/v4.3.1/libpod/_ping": dial unix ///run/podman/podman.sock: connect: no such file or directory\n',
            125,
          ),
        ),
      'offline',
      /does not reach its engine: .* It printed: Error: failed to open connection to podman/,
    ],
    [
      'ends for another reason',
      () => server.writeDocker(print('unable to resolve docker endpoint: context "x" does not exist\n', 1)),
      'error',
      /before the engine answered\. It printed: unable to resolve .*context "x" does not exist$/,
    ],
    ['ends without a text', () => server.writeDocker('exit 3'), 'error', /before the engine answered\.$/],
    ['ends with success', () => server.writeDocker('exit 0'), 'error', /before the engine answered\.$/],
    [
      'is a script that prints a text',
      () => server.writeDocker("echo 'Welcome to this machine'"),
      'error',
      /What answers is not an engine\. Over SSH, the program with the name docker may be another one/,
    ],
  ];
  for (const [cause, prepare, status, message] of cases) {
    itOverSsh(`names the cause and quotes the first line when docker ${cause}`, async () => {
      await prepare();
      const result = await test();
      expect(result).toMatchObject({ status, message: expect.stringMatching(message) });
      expect(result.stages.find((stage) => stage.status === 'failed')?.name).toBe('permission');
    });
  }

  itOverSsh('quotes no line that contains a secret of the target', async () => {
    for (const secret of [sshHosts().password, ENVIRONMENT_SECRET]) {
      await server.writeDocker(print(`wrong: ${'x'.repeat(190)}${secret}\n`, 1));
      expect((await test()).message).not.toContain('It printed');
    }
  });

  itOverSsh('quotes 200 visible characters at most', async () => {
    await server.writeDocker(print(`\u001b[31mno\u202e ${'x'.repeat(3_000)}\nsecond line\n`, 1));
    const { message } = await test();
    const [, quote = ''] = message.split('It printed: ');
    expect(quote).toMatch(/^no x+…$/);
    expect(quote).toHaveLength(200);
    expect(findHiddenCharacter(message)).toBeUndefined();
  });

  itOverSsh('names the cause in the exit of a run, and signs in again for the next one', async () => {
    await server.writeDocker(print('dial unix /run/docker.sock: connect: permission denied', 1));
    const dialer = localDialer();
    const ssh = createSshConnections({ dialer });
    afterThisTest(async () => {
      await ssh.close();
      await dialer.close();
    });
    const { exit } = await runToExit(openRunner({ dialer, ssh }), target(), createJob('echo ran'));
    expect(exit).toMatchObject({
      cause: 'infrastructure',
      code: null,
      message: expect.stringMatching(/may not use Docker's socket/),
    });
    // A connection that stays open would keep the account's old groups.
    await until(
      () => ssh.listOwners(),
      (owners) => owners.length === 0,
    );
  });

  describe('whose account has a start file', () => {
    afterEach(() => server.writeStartFile(''));

    itOverSsh('that prints: its text is neither read as an answer of the engine nor quoted', async () => {
      await server.writeStartFile("echo 'HTTP/1.1 500 Welcome'; echo 'docker: command not found' >&2");
      await server.writeDocker(`DOCKER_HOST=unix://${host.socketPath} exec ${host.command} "$@"`);
      expect(await test()).toMatchObject({ status: 'online' });
      await server.writeDocker(print('wrong\n', 3));
      expect((await test()).message).toMatch(/before the engine answered\. It printed: wrong$/);
    });

    itOverSsh.each([
      ['reads the input', 'exec /bin/cat >"$TMPDIR/input"', /did not run docker within 15 s/],
      [
        'repeats the input',
        'exec /usr/bin/tee "$TMPDIR/input"',
        /another program reads its input, so nothing of the request was sent/,
      ],
    ])('that starts a program which %s: this receives one harmless line', async (_name, script, message) => {
      const input = path.join(server.temporary, 'input');
      await server.writeStartFile(script);
      const result = await test();
      expect(result).toMatchObject({ status: 'error', message: expect.stringMatching(message) });
      expect(result.stages.find((stage) => stage.status === 'failed')?.name).toBe('permission');
      expect(await readFile(input, 'utf8')).toMatch(/^echo [0-9a-f]{32}\n$/);
      await rm(input);
    });
  });
});
