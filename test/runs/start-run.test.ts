import { describe, expect, it } from '@jest/globals';
import { toJob, toLimits, StartRun } from '../../src/runs/schema.ts';

const python = { language: 'python', code: '' };
const command = { command: 'true' };

/** The paths of the invalid members; an empty path is the whole request. */
function invalidPaths(request: unknown): string[] {
  const { error } = StartRun.safeParse(request);
  return [...new Set((error?.issues ?? []).map((issue) => issue.path.join('.')))];
}

describe('a request to start a run', () => {
  it('has either a language and code, or a command', () => {
    for (const request of [python, command, { language: 'bash', code: 'echo "$0"' }])
      expect(invalidPaths(request)).toEqual([]);
    for (const request of [
      {},
      { language: 'python' },
      { code: '1' },
      { ...python, ...command },
      { ...command, code: '1' },
      { ...command, language: 'bash' },
    ])
      expect(invalidPaths(request)).toEqual(['']);
    expect(invalidPaths({ language: 'perl', code: '' })).toContain('language');
    expect(invalidPaths({ command: '' })).toContain('command');
  });

  it('has files with relative paths that stay in the folder, are unique and do not contain each other', () => {
    const files = (...paths: string[]) => ({
      ...command,
      files: paths.map((path) => ({ path, content: '' })),
    });
    for (const path of ['a', 'a/b.txt', '..a', 'a..', '.hidden', 'with space', "quo'te", 'é', '$(x)', '-rf'])
      expect([path, invalidPaths(files(path))]).toEqual([path, []]);
    const outside = ['', '/a', '..', '../a', 'a/../b', 'a/..', '.', './a', 'a//b', 'a/', 'a\0b', 'a\nb'];
    for (const path of [...outside, 'x'.repeat(256)])
      expect([path, invalidPaths(files(path))]).toEqual([path, ['files.0.path']]);
    expect(invalidPaths(files('a', 'a'))).toEqual(['files']);
    expect(invalidPaths(files('a/b/c', 'a/b'))).toEqual(['files']);
    expect(invalidPaths(files('a/b', 'a/c', 'ab'))).toEqual([]);
    expect(invalidPaths(files(...Array.from({ length: 101 }, (_, at) => `f${at}`)))).toEqual(['files']);
    const base64 = { path: 'a', encoding: 'base64' };
    expect(invalidPaths({ ...command, files: [{ ...base64, content: '/wA=' }] })).toEqual([]);
    expect(invalidPaths({ ...command, files: [{ ...base64, content: 'not base64' }] })).toEqual([
      'files.0.content',
    ]);
  });

  it('has variables with valid names and values without a zero byte', () => {
    for (const name of ['A', '_a1', 'LD_PRELOAD'])
      expect(invalidPaths({ ...command, env: { [name]: '$(x)' } })).toEqual([]);
    for (const name of ['', '1A', 'A-B', 'A B', 'A=B', 'A\n', 'Ä', '$(x)'])
      expect([name, invalidPaths({ ...command, env: { [name]: '' } })]).toEqual([name, [`env.${name}`]]);
    expect(invalidPaths({ ...command, env: { A: 'a\0b' } })).toEqual(['env.A']);
    expect(invalidPaths({ ...command, env: { A: 'x'.repeat(32 * 1024 + 1) } })).toEqual(['env.A']);
  });

  it('has limits of size, in bytes, and of time', () => {
    const half = 'é'.repeat(256 * 1024);
    expect(invalidPaths({ ...python, code: half })).toEqual([]);
    expect(invalidPaths({ ...python, code: `${half}x` })).toEqual(['code']);
    expect(invalidPaths({ command: 'x'.repeat(64 * 1024 + 1) })).toEqual(['command']);
    for (const ms of [0, -1, 1.5, 3_600_001, '1', null])
      expect([ms, invalidPaths({ ...command, timeout_ms: ms })]).toEqual([ms, ['timeout_ms']]);
    for (const [name, value] of [
      ['max_output_bytes', 0],
      ['max_output_bytes', 1024 ** 3 + 1],
      ['memory_bytes', 1],
      ['cpus', 0],
      ['pids', 0.5],
      ['network', 'some'],
      ['nothing', 1],
    ] as const)
      expect(invalidPaths({ ...command, limits: { [name]: value } })).toEqual([
        name === 'nothing' ? 'limits' : `limits.${name}`,
      ]);
  });

  it('has an absolute working folder and no undeclared members', () => {
    expect(invalidPaths({ ...command, workdir: '/srv/work' })).toEqual([]);
    for (const workdir of ['work', '', '~', '/a\0'])
      expect(invalidPaths({ ...command, workdir })).toEqual(['workdir']);
    expect(invalidPaths({ ...command, server_id: 'x' })).toEqual(['']);
    expect(invalidPaths({ ...command, on_disconnect: 'stop' })).toEqual(['on_disconnect']);
  });
});

describe('a valid request', () => {
  it('is converted to a job and its limits', () => {
    const request = StartRun.parse({
      language: 'bash',
      code: 'cat',
      stdin: 'é',
      files: [{ path: 'a', content: '/wA=', encoding: 'base64' }],
      env: { A: 'b' },
      workdir: '/srv',
      timeout_ms: 5,
      limits: { max_output_bytes: 6, memory_bytes: 7_000_000, cpus: 0.5, pids: 8, network: 'none' },
    });
    expect(toJob('run', request)).toEqual({
      runId: 'run',
      program: { language: 'bash', code: 'cat' },
      stdin: Buffer.from('é'),
      files: [{ path: 'a', content: Buffer.from([255, 0]) }],
      env: { A: 'b' },
      workdir: '/srv',
    });
    expect(toLimits(request)).toEqual({
      timeoutMs: 5,
      maxOutputBytes: 6,
      memoryBytes: 7_000_000,
      cpus: 0.5,
      pids: 8,
      network: 'none',
    });
  });

  it('gets the documented defaults and an empty input', () => {
    const request = StartRun.parse(command);
    expect(toJob('run', request)).toMatchObject({ program: command, stdin: null, files: [], workdir: null });
    expect(toLimits(request)).toEqual({
      timeoutMs: 300_000,
      maxOutputBytes: 10 * 1024 * 1024,
      memoryBytes: null,
      cpus: null,
      pids: null,
      network: null,
    });
    expect(request.on_disconnect).toBe('continue');
  });
});
