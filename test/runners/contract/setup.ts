import { describe, expect } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import type { Language, TargetServer } from '../../../src/runners/runner.ts';
import { SETUP_FAILED } from '../../../src/runners/setup.ts';
import { exitedWith, type ContractHarness } from './harness.ts';

/** Programs that print a variable and the name of their folder. */
const PROGRAMS: Record<Language, string> = {
  python: 'import os; print(os.environ["FROM_SETUP"], os.path.basename(os.getcwd()))',
  javascript: 'console.log(process.env.FROM_SETUP, require("node:path").basename(process.cwd()))',
  bash: 'echo "$FROM_SETUP" "${PWD##*/}"',
};

/** Set-ups that do not end with exit code 0, and the exit code of the run. */
const FAILURES: [name: string, setup: string, code: unknown][] = [
  ['with a failing last command', 'echo out; echo err >&2; (exit 3)', 3],
  ['that calls exit', 'echo out; echo err >&2; exit 4', 4],
  ['that calls exit 0', 'echo out; echo err >&2; exit 0', 0],
  ['with set -e', 'set -e; echo out; echo err >&2; false; true', 1],
  ['with a missing file', 'echo out; echo err >&2; source ./none', expect.any(Number)],
  ['with a syntax error', 'echo out; echo err >&2\nif', expect.any(Number)],
];

export function describeSetup(harness: ContractHarness): void {
  const { subject } = harness;
  const withSetup = (setup: string, target = subject.target()): TargetServer => ({
    ...target,
    config: { ...(target.config as object), setup },
  });

  describe('the set-up of a server', () => {
    describeEffect(harness, withSetup);
    describeFailure(harness, withSetup);
    describeStage(harness, withSetup);
  });
}

type WithSetup = (setup: string, target?: TargetServer) => TargetServer;

function describeEffect({ test, run, subject }: ContractHarness, withSetup: WithSetup): void {
  const prepare = `cat; set -a; echo "VALUE='a  b'; export VALUE" >values.sh; source ./values.sh; mkdir sub; cd sub`;

  test('reaches a command with its variables and its folder, and reads no input of it', async () => {
    const command =
      'printf "%s|%s|" "$VALUE" "${PWD##*/}"; cat; env | grep -i ops_setup; env | grep ops_; exit 7';
    const { stdout, stderr, exit, phases } = await run({
      ...{ program: { command }, stdin: Buffer.from('input'), target: withSetup(prepare) },
      env: { VALUE: 'replaced' },
    });
    expect([stdout.toString(), stderr.toString()]).toEqual(['a  b|sub|input', '']);
    expect(exit).toEqual(exitedWith(7));
    expect(phases).toEqual(['preparing', 'started']);
  });

  for (const language of subject.capabilities.languages) {
    test(`reaches ${language} with its variables and its folder`, async () => {
      const target = withSetup('declare -x FROM_SETUP=value; mkdir sub && cd sub');
      const { stdout, stderr, exit } = await run({ program: { language, code: PROGRAMS[language] }, target });
      expect([stdout.toString(), stderr.toString()]).toEqual(['value sub\n', '']);
      expect(exit).toEqual(exitedWith(0));
    });
  }

  test('may use the variables of the job, and is in no process list', async () => {
    const secret = randomBytes(16).toString('hex');
    const target = withSetup(`SECRET=${secret}; cat /proc/$$/cmdline; export FROM_JOB="$FROM_JOB and more"`);
    const command = 'cat /proc/$$/cmdline /proc/$$/environ | tr "\\0" "\\n"';
    const { stdout, exit } = await run({ program: { command }, env: { FROM_JOB: 'value' }, target });
    expect(stdout.toString()).toContain('FROM_JOB=value and more\n');
    expect(stdout.toString()).not.toContain(secret);
    expect(exit).toEqual(exitedWith(0));
  });

  test('may add the interpreter to PATH', async () => {
    const python = '#!/bin/sh\\nwhile [ $# -gt 1 ]; do shift; done\\ncat "$1"\\n';
    const setup = `mkdir bin && printf '${python}' >bin/python3 && chmod +x bin/python3; export PATH="$PWD/bin:$PATH"`;
    const target = withSetup(setup, subject.missingInterpreter.target?.());
    const { stdout, exit } = await run({ program: { language: 'python', code: 'the code' }, target });
    expect(stdout.toString()).toBe('the code');
    expect(exit).toEqual(exitedWith(0));
  });
}

function describeFailure({ test, run, start }: ContractHarness, withSetup: WithSetup): void {
  for (const [name, setup, code] of FAILURES) {
    test(`${name} ends the run before the program, with its output`, async () => {
      const { stdout, stderr, exit } = await run({
        program: { command: 'echo ran' },
        target: withSetup(setup),
      });
      expect(stdout.toString()).toBe('out\n');
      expect(stderr.toString()).toMatch(/^err\n/);
      expect(exit).toMatchObject({ cause: 'exited', code, cleanup: 'verified', message: SETUP_FAILED });
      if (name !== 'that calls exit 0') expect(exit.code).not.toBe(0);
    });
  }

  test('without an interpreter after it ends with an infrastructure error that names it', async () => {
    const program = { language: 'python', code: '' } as const;
    const { stdout, exit } = await run({ program, target: withSetup('echo out; PATH=/nowhere') });
    expect(stdout.toString()).toBe('out\n');
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(exit.message).toMatch(/python/);
  });

  test('is killed when the run is cancelled', async () => {
    const target = withSetup('trap "" HUP TERM; echo ready; sleep 1000');
    const started = start({ program: { command: 'echo ran' }, target });
    await started.readUntil('ready');
    started.stop.abort('cancelled');
    const { stdout, exit } = await started.readToEnd();
    expect(stdout.toString()).toBe('ready\n');
    expect(exit).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
  });
}

function describeStage({ test, runner }: ContractHarness, withSetup: WithSetup): void {
  const testServer = async (setup: string) => {
    const { status, stages } = await runner().test(withSetup(setup), new AbortController().signal);
    const names = stages.map(({ name }) => name);
    expect(names.indexOf('setup')).toBe(names.indexOf('workspace') + 1);
    return { status, stages: new Map(stages.map((stage) => [stage.name, stage])) };
  };

  test('has a stage in the test of the server, and may print', async () => {
    const { status, stages } = await testServer('echo out; echo err >&2; cat');
    expect([...stages.values()].filter((stage) => stage.status !== 'ok')).toEqual([]);
    expect(status).toBe('online');
  });

  test('fails its stage, and later stages are skipped', async () => {
    const { status, stages } = await testServer('echo out; echo err >&2; exit 3');
    expect(status).toBe('error');
    expect(stages.get('setup')).toMatchObject({ status: 'failed', message: SETUP_FAILED });
    expect(stages.get('workspace')).toMatchObject({ status: 'ok' });
    expect(stages.get('echo')).toMatchObject({ status: 'skipped' });
  });
}
