import { describe, expect, it } from '@jest/globals';
import { toDockerExit } from '../../../src/runners/docker/exit.ts';
import type { ScriptMarker } from '../../../src/runners/docker/script.ts';

const exitFor = (code: number, markers: ScriptMarker[], wasOomKilled = false) =>
  toDockerExit({ code, wasOomKilled, markers: new Set(markers), interpreter: 'node', image: 'small:1' });

describe('toDockerExit', () => {
  it('keeps an exit code if the script reports that the program exited', () => {
    for (const code of [0, 1, 137, 143, 255])
      expect(exitFor(code, ['start', 'exited'])).toMatchObject({ cause: 'exited', code, signal: null });
  });

  it('reports lost for an invalid exit code', () => {
    for (const code of [-1, 256, 2 ** 53, 1.5, Number.NaN])
      expect(exitFor(code, ['start', 'exited'])).toMatchObject({ cause: 'lost', code: null, signal: null });
  });

  it('reports the signal, and no code, if the script reports that a signal ended the program', () => {
    expect(exitFor(137, ['start', 'signal'])).toMatchObject({
      cause: 'signal',
      code: null,
      signal: 'SIGKILL',
    });
    expect(exitFor(139, ['start', 'signal'])).toMatchObject({
      cause: 'signal',
      code: null,
      signal: 'SIGSEGV',
    });
  });

  it('reports a signal if the container was killed from outside', () => {
    expect(exitFor(137, ['start'])).toMatchObject({ cause: 'signal', signal: 'SIGKILL' });
  });

  it('reports out_of_memory only if a process was killed for memory and the program did not exit otherwise', () => {
    expect(exitFor(137, ['start', 'signal'], true)).toMatchObject({ cause: 'out_of_memory', code: null });
    expect(exitFor(137, ['start', 'exited'], true)).toMatchObject({ cause: 'out_of_memory' });
    expect(exitFor(137, [], true)).toMatchObject({ cause: 'out_of_memory' });
    expect(exitFor(1, ['start', 'exited'], true)).toMatchObject({ cause: 'exited', code: 1 });
    expect(exitFor(0, ['start', 'exited'], true)).toMatchObject({ cause: 'exited', code: 0 });
  });

  it('never reports code 0 without a marker of the script', () => {
    expect(exitFor(0, ['start'])).toMatchObject({ cause: 'lost', code: null });
    expect(exitFor(0, [])).toMatchObject({ cause: 'infrastructure', code: null });
  });

  it('reports infrastructure with the reason if the program did not start', () => {
    expect(exitFor(125, ['fail:workspace'])).toMatchObject({ cause: 'infrastructure', code: null });
    expect(exitFor(125, ['fail:workspace']).message).toMatch(/working folder/);
    expect(exitFor(125, ['fail:files']).message).toMatch(/could not be written/);
    expect(exitFor(125, ['fail:interpreter']).message).toMatch(/no node/);
    expect(exitFor(125, ['fail:scratch']).message).toMatch(/memory/);
  });
});
