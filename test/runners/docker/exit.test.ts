import { describe, expect, it } from '@jest/globals';
import { toDockerExit } from '../../../src/runners/docker/exit.ts';
import type { ScriptMarker } from '../../../src/runners/docker/script.ts';

const exitFor = (code: number, records: ScriptMarker[], wasOomKilled = false) =>
  toDockerExit({ code, wasOomKilled, markers: new Set(records), interpreter: 'node' });

describe('the verdict on how a container ended', () => {
  it('takes an exit code as it is when the script says that the program exited', () => {
    for (const code of [0, 1, 137, 143, 255])
      expect(exitFor(code, ['start', 'exited'])).toMatchObject({ cause: 'exited', code, signal: null });
  });

  it('believes no exit code that no program has', () => {
    for (const code of [-1, 256, 2 ** 53, 1.5, Number.NaN])
      expect(exitFor(code, ['start', 'exited'])).toMatchObject({ cause: 'lost', code: null, signal: null });
  });

  it('names the signal, and no code, when the script says that one ended the program', () => {
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

  it('is a signal when somebody else killed the container', () => {
    expect(exitFor(137, ['start'])).toMatchObject({ cause: 'signal', signal: 'SIGKILL' });
  });

  it('is a lack of memory only when something was killed for it and the program did not end otherwise', () => {
    expect(exitFor(137, ['start', 'signal'], true)).toMatchObject({ cause: 'out_of_memory', code: null });
    expect(exitFor(137, ['start', 'exited'], true)).toMatchObject({ cause: 'out_of_memory' });
    expect(exitFor(137, [], true)).toMatchObject({ cause: 'out_of_memory' });
    expect(exitFor(1, ['start', 'exited'], true)).toMatchObject({ cause: 'exited', code: 1 });
    expect(exitFor(0, ['start', 'exited'], true)).toMatchObject({ cause: 'exited', code: 0 });
  });

  it('is never a code of 0 without a word of the script', () => {
    expect(exitFor(0, ['start'])).toMatchObject({ cause: 'lost', code: null });
    expect(exitFor(0, [])).toMatchObject({ cause: 'infrastructure', code: null });
  });

  it('is no fault of the program when it was not started, and says why', () => {
    expect(exitFor(125, ['fail:workspace'])).toMatchObject({ cause: 'infrastructure', code: null });
    expect(exitFor(125, ['fail:workspace']).message).toMatch(/working folder/);
    expect(exitFor(125, ['fail:files']).message).toMatch(/could not be written/);
    expect(exitFor(125, ['fail:interpreter']).message).toMatch(/no node/);
    expect(exitFor(125, ['fail:scratch']).message).toMatch(/memory/);
  });
});
