import { describe, expect, it } from '@jest/globals';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { sshConfig, type SshConfig } from '../../../src/lib/ssh/config.ts';
import { describeInterpreters } from '../../../src/runners/interpreters.ts';
import { toInterpreterSettings } from '../../../src/runners/ssh/interpreters.ts';
import { afterThisTest, neverAborted, serverAt } from '../../lib/ssh/servers.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';
import { randomPassword } from '../../support/servers.ts';
import { createJob, LIMITS, openRunner, readAll, targetAt } from './ssh-runs.ts';

const NO_PROGRAM = '/nowhere/program';

function parse(changes: Partial<SshConfig> = {}): SshConfig {
  const base = { host: 'h', username: 'u', auth_method: 'password', password: randomPassword() };
  return sshConfig.parse({ ...base, ...changes });
}

describe('the description of the interpreters of a host', () => {
  const config = parse();
  const NOT_IN_TIME = 'not known, since a program did not print its version in time';

  it.each([
    [
      'names program and version of each language',
      '/opt/conda/bin/python3\nPython 3.12.1\n\n\n/bin/bash\nGNU bash, version 5.2.15(1)-release\n',
      'python: /opt/conda/bin/python3 3.12.1; javascript: none; bash: /bin/bash 5.2.15',
    ],
    [
      'reads the version that follows a letter',
      '\n\n/n/node\nv24.1.0\n\n\n',
      'python: none; javascript: /n/node 24.1.0; bash: none',
    ],
    [
      'takes no version from an error',
      '/shims/python\npyenv: version `3.9.1 is not installed\n\n\n\n\n',
      'python: /shims/python of unknown version; javascript: none; bash: none',
    ],
    [
      'says what was not printed in time',
      '/bin/python3\nPython 3.12.1\n/bin/node\n',
      `python: /bin/python3 3.12.1; javascript: /bin/node of unknown version; bash: ${NOT_IN_TIME}`,
    ],
    [
      'shows no control or invisible characters',
      '/a\u202e\x1b[31m/python3\nPython 3.12.1\n\n\n\n\n',
      'python: /a [31m/python3 3.12.1; javascript: none; bash: none',
    ],
  ])('%s', (_rule, output, description) => {
    expect(describeInterpreters(output, toInterpreterSettings(config))).toBe(description);
  });

  it('has at most 80 characters for a program, with its name', () => {
    const output = `/${'x'.repeat(5_000)}/python3\nPython ${'3.'.repeat(5_000)}\n\n\n\n\n`;
    const [python = ''] = describeInterpreters(output, toInterpreterSettings(config)).split(';');
    expect(python).toMatch(/^python: ….*x\/python3 3\.3\.3\.3$/);
    expect(python.length).toBe('python: '.length + 80);
  });

  it.each<[string, (secret: string) => Partial<SshConfig>]>([
    ['a value of the environment', (secret) => ({ environment: { TOKEN: secret } })],
    ['the PATH of the environment', (secret) => ({ environment: { PATH: `/opt/${secret}` } })],
    ['the password', (secret) => ({ password: secret })],
    ['a word of the set-up', (secret) => ({ setup: `export TOKEN="${secret}"; cd sub` })],
  ])('shows the name alone of a program whose path contains %s', (_name, change) => {
    const secret = randomPassword();
    const hidden = `${secret.slice(0, 8)}\u200b${secret.slice(8)}`;
    for (const folder of [secret, hidden]) {
      const output = `/opt/${folder}/python3\nPython 3.12.1\n\n\n\n\n`;
      expect(describeInterpreters(output, toInterpreterSettings(parse(change(secret))))).toBe(
        'python: python3 3.12.1; javascript: none; bash: none',
      );
    }
  });
});

it('the description of the interpreters of a host shows no secret of digits as a version', () => {
  const output = '/bin/python3\nPython 482915\n\n\n\n\n';
  expect(describeInterpreters(output, toInterpreterSettings(parse({ environment: { PIN: '482915' } })))).toBe(
    'python: /bin/python3 of unknown version; javascript: none; bash: none',
  );
});

describeOn('ssh', 'the programs of an SSH server', () => {
  const { plain } = sshHosts();
  const targetWith = (config: Record<string, unknown>) => targetAt(serverAt(plain, config));

  /** Creates a folder on the host, whose path has blanks, with a program that has this text. */
  function createProgram(name: string, text: string): { folder: string; file: string } {
    const root = mkdtempSync(path.join(tmpdir(), 'ops-center-programs-'));
    afterThisTest(() => rmSync(root, { recursive: true }));
    chmodSync(root, 0o755);
    const folder = path.join(root, "conda's envs $(exit)");
    mkdirSync(folder);
    const file = path.join(folder, name);
    writeFileSync(file, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    return { folder, file };
  }
  const echoOf = async (config: Record<string, unknown>) => {
    const { stages, status } = await openRunner().test(targetWith(config), neverAborted());
    return { status, message: stages.find(({ name }) => name === 'echo')?.message };
  };

  it('run code with the variables of the server, of which those of the job take precedence', async () => {
    const secret = randomPassword();
    const { folder, file } = createProgram('my python', 'printf "%s " "$TOKEN" "$PATH" "$MODE"; cat "$3"');
    const PATH = `${folder}:/usr/bin:/bin`;
    const config = { interpreters: { python: file }, environment: { TOKEN: secret, PATH, MODE: 'server' } };
    const job = createJob({ program: { language: 'python', code: 'the code' }, env: { MODE: 'job' } });
    const { output, exit } = await readAll(openRunner().run(targetWith(config), job, LIMITS, neverAborted()));
    expect(output === `${secret} ${PATH} job the code`).toBe(true);
    expect(exit).toMatchObject({ cause: 'exited', code: 0, cleanup: 'verified' });
  });

  it('are named by the test with their versions: the first ones on the PATH of the environment', async () => {
    const { folder, file } = createProgram('python3', 'echo Python 3.99.1');
    const config = {
      environment: { PATH: `${folder}:/usr/bin:/bin` },
      interpreters: { javascript: NO_PROGRAM },
    };
    const { status, message } = await echoOf(config);
    expect(status).toBe('online');
    expect(message).toContain(`python: ${shortened(file, '3.99.1')} 3.99.1; javascript: none; bash: /`);
  });

  it('are named by the test as the server chose them', async () => {
    const { file } = createProgram('any name', 'echo v7.8.9');
    const { message } = await echoOf({ interpreters: { javascript: file } });
    expect(message).toContain(`javascript: ${shortened(file, '7.8.9')} 7.8.9;`);
  });

  it('do not fail the test when one prints no version', async () => {
    const { file } = createProgram('python3', 'exec sleep 1000');
    const { status, message } = await echoOf({ interpreters: { python: file } });
    expect(status).toBe('online');
    expect(message).toContain('python3 of unknown version; javascript: not known');
  }, 60_000);

  it('of the system must be on the PATH of the environment: the test and runs say so', async () => {
    const target = targetWith({ environment: { PATH: '/opt/conda/bin' } });
    const runner = openRunner();
    const job = createJob({ program: { command: 'true' } });
    const { exit } = await readAll(runner.run(target, job, LIMITS, neverAborted()));
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(exit?.message).toContain('There is no sh on the PATH of the run.');
    expect(await runner.test(target, neverAborted())).toMatchObject({
      status: 'error',
      message: exit?.message,
    });
  });

  it('are named when they are missing, with the setting that named them', async () => {
    const config = { interpreters: { python: NO_PROGRAM } };
    const job = createJob({ program: { language: 'python', code: '' } });
    const { exit } = await readAll(openRunner().run(targetWith(config), job, LIMITS, neverAborted()));
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(exit?.message).toContain(`${NO_PROGRAM}, which interpreters.python of the server names`);
  });
});

/** A path as the test shows it beside a version. */
function shortened(file: string, version: string): string {
  const maxLength = 80 - version.length - 1;
  return file.length <= maxLength ? file : `…${file.slice(1 - maxLength)}`;
}
