import { describe, expect, it } from '@jest/globals';
import { toJob, toLimits, StartRun } from '../../src/runs/schema.ts';

const python = { language: 'python', code: '' };
const command = { command: 'true' };

/** The paths of what is wrong; an empty one is the whole. */
function faultsOf(asked: unknown): string[] {
  const { error } = StartRun.safeParse(asked);
  return [...new Set((error?.issues ?? []).map((issue) => issue.path.join('.')))];
}

describe('a run is asked for', () => {
  it('by a language and code, or by a command, and never by both or neither', () => {
    for (const asked of [python, command, { language: 'bash', code: 'echo "$0"' }])
      expect(faultsOf(asked)).toEqual([]);
    for (const asked of [
      {},
      { language: 'python' },
      { code: '1' },
      { ...python, ...command },
      { ...command, code: '1' },
      { ...command, language: 'bash' },
    ])
      expect(faultsOf(asked)).toEqual(['']);
    expect(faultsOf({ language: 'perl', code: '' })).toContain('language');
    expect(faultsOf({ command: '' })).toContain('command');
  });

  it('with files of relative paths that stay inside, each once, none inside another', () => {
    const files = (...paths: string[]) => ({
      ...command,
      files: paths.map((path) => ({ path, content: '' })),
    });
    for (const path of ['a', 'a/b.txt', '..a', 'a..', '.hidden', 'with space', "quo'te", 'é', '$(x)', '-rf'])
      expect([path, faultsOf(files(path))]).toEqual([path, []]);
    const outside = ['', '/a', '..', '../a', 'a/../b', 'a/..', '.', './a', 'a//b', 'a/', 'a\0b', 'a\nb'];
    for (const path of [...outside, 'x'.repeat(256)])
      expect([path, faultsOf(files(path))]).toEqual([path, ['files.0.path']]);
    expect(faultsOf(files('a', 'a'))).toEqual(['files']);
    expect(faultsOf(files('a/b/c', 'a/b'))).toEqual(['files']);
    expect(faultsOf(files('a/b', 'a/c', 'ab'))).toEqual([]);
    expect(faultsOf(files(...Array.from({ length: 101 }, (_, at) => `f${at}`)))).toEqual(['files']);
    const base64 = { path: 'a', encoding: 'base64' };
    expect(faultsOf({ ...command, files: [{ ...base64, content: '/wA=' }] })).toEqual([]);
    expect(faultsOf({ ...command, files: [{ ...base64, content: 'not base64' }] })).toEqual([
      'files.0.content',
    ]);
  });

  it('with variables of plain names, and values without a zero byte', () => {
    for (const name of ['A', '_a1', 'LD_PRELOAD'])
      expect(faultsOf({ ...command, env: { [name]: '$(x)' } })).toEqual([]);
    for (const name of ['', '1A', 'A-B', 'A B', 'A=B', 'A\n', 'Ä', '$(x)'])
      expect([name, faultsOf({ ...command, env: { [name]: '' } })]).toEqual([name, [`env.${name}`]]);
    expect(faultsOf({ ...command, env: { A: 'a\0b' } })).toEqual(['env.A']);
    expect(faultsOf({ ...command, env: { A: 'x'.repeat(32 * 1024 + 1) } })).toEqual(['env.A']);
  });

  it('within limits of size and time, in bytes rather than characters', () => {
    const half = 'é'.repeat(256 * 1024);
    expect(faultsOf({ ...python, code: half })).toEqual([]);
    expect(faultsOf({ ...python, code: `${half}x` })).toEqual(['code']);
    expect(faultsOf({ command: 'x'.repeat(64 * 1024 + 1) })).toEqual(['command']);
    for (const ms of [0, -1, 1.5, 3_600_001, '1', null])
      expect([ms, faultsOf({ ...command, timeout_ms: ms })]).toEqual([ms, ['timeout_ms']]);
    for (const [name, value] of [
      ['max_output_bytes', 0],
      ['max_output_bytes', 1024 ** 3 + 1],
      ['memory_bytes', 1],
      ['cpus', 0],
      ['pids', 0.5],
      ['network', 'some'],
      ['nothing', 1],
    ] as const)
      expect(faultsOf({ ...command, limits: { [name]: value } })).toEqual([
        name === 'nothing' ? 'limits' : `limits.${name}`,
      ]);
  });

  it('with an absolute working folder, and nothing that is not declared', () => {
    expect(faultsOf({ ...command, workdir: '/srv/work' })).toEqual([]);
    for (const workdir of ['work', '', '~', '/a\0'])
      expect(faultsOf({ ...command, workdir })).toEqual(['workdir']);
    expect(faultsOf({ ...command, server_id: 'x' })).toEqual(['']);
    expect(faultsOf({ ...command, on_disconnect: 'stop' })).toEqual(['on_disconnect']);
  });
});

describe('what was asked for', () => {
  it('becomes a job and its limits', () => {
    const asked = StartRun.parse({
      language: 'bash',
      code: 'cat',
      stdin: 'é',
      files: [{ path: 'a', content: '/wA=', encoding: 'base64' }],
      env: { A: 'b' },
      workdir: '/srv',
      timeout_ms: 5,
      limits: { max_output_bytes: 6, memory_bytes: 7_000_000, cpus: 0.5, pids: 8, network: 'none' },
    });
    expect(toJob('run', asked)).toEqual({
      runId: 'run',
      program: { language: 'bash', code: 'cat' },
      stdin: Buffer.from('é'),
      files: [{ path: 'a', content: Buffer.from([255, 0]) }],
      env: { A: 'b' },
      workdir: '/srv',
    });
    expect(toLimits(asked)).toEqual({
      timeoutMs: 5,
      maxOutputBytes: 6,
      memoryBytes: 7_000_000,
      cpus: 0.5,
      pids: 8,
      network: 'none',
    });
  });

  it('has the defaults that are documented, and an empty input', () => {
    const asked = StartRun.parse(command);
    expect(toJob('run', asked)).toMatchObject({ program: command, stdin: null, files: [], workdir: null });
    expect(toLimits(asked)).toEqual({
      timeoutMs: 300_000,
      maxOutputBytes: 10 * 1024 * 1024,
      memoryBytes: null,
      cpus: null,
      pids: null,
      network: null,
    });
    expect(asked.on_disconnect).toBe('continue');
  });
});
