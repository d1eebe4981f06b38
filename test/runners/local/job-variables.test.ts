import { afterAll, afterEach, beforeAll, expect, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Job } from '../../../src/runners/runner.ts';
import { describeOn } from '../../support/hosts.ts';
import { listLeaks } from './leaks.ts';
import { localRunner, runLocally } from './running.ts';

const MAX_STALL_MS = 1_000;
const MAX_GROWTH_BYTES = 64 * 2 ** 20;
const FLOOD_BYTES = 128 * 2 ** 20;

/** Writes 128 MB to every descriptor, in the process that loads it. */
const FLOOD_SHELL = `for each in /proc/$$/fd/*; do head -c ${FLOOD_BYTES} /dev/zero >&"\${each##*/}"; done 2>/dev/null`;
const FLOOD_NODE = `for (const each of require('fs').readdirSync('/proc/self/fd')) try { for (let n = 0; n < 128; n++) require('fs').writeSync(+each, Buffer.alloc(1048576)); } catch {}`;
const FLOOD_PYTHON = `import os\nfor each in os.listdir('/proc/self/fd'):\n    try:\n        for n in range(128): os.write(int(each), bytes(1048576))\n    except OSError: pass\n`;
const FLOOD_C = `
  #include <unistd.h>
  static char zero[65536];
  __attribute__((constructor)) static void flood(void) {
    for (int fd = 63; fd >= 0; fd--) for (int n = 0; n < 2048 && write(fd, zero, sizeof zero) > 0; n++);
  }`;

const file = (name: string, content: string | Buffer) => ({ path: name, content: Buffer.from(content) });

describeOn('local', 'the variables of a local run', () => {
  const runner = localRunner();
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'local-variables-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  afterEach(() => expect(listLeaks()).toEqual([]));

  it('reach the program unchanged, whatever is in them', async () => {
    const env = {
      QUOTES: `it's "quoted" $HOME \`id\` \\`,
      LINES: 'one\ntwo\n\nfour\n',
      EMPTY: '',
      IFS: 'abc',
      CDPATH: '/usr',
      PWD: '/nowhere',
      UID: '7',
      OPS_CENTER_RUN: 'mine',
      LANG: 'C',
    };
    const code = 'import json, os; print(json.dumps(dict(os.environ)))';
    const { text, exit } = await runLocally(runner, { program: { language: 'python', code }, env });
    expect(exit.code).toBe(0);
    expect(JSON.parse(text)).toMatchObject({ ...env, PWD: '/work' });
  });

  it.each([
    ['LD_TRACE_LOADED_OBJECTS', '1'],
    ['LD_PRELOAD', '/work/no-library.so'],
    ['LD_DEBUG', 'all'],
    ['BASH_ENV', '/work/exit.sh'],
    ['ENV', '/work/exit.sh'],
    ['PATH', '/usr/bin'],
  ])('do not keep the sandbox from starting the program: %s', async (name, value) => {
    const job: Partial<Job> = {
      program: { command: 'exit 3' },
      ...{ env: { [name]: value }, files: [file('exit.sh', 'exit 1')] },
    };
    const { exit } = await runLocally(runner, job);
    // With LD_TRACE_LOADED_OBJECTS the loader lists the libraries of the program instead of starting it.
    expect(exit).toMatchObject({ cause: 'exited', code: name === 'LD_TRACE_LOADED_OBJECTS' ? 0 : 3 });
  });

  const floods: [name: string, job: () => Partial<Job>][] = [
    [
      'BASH_ENV',
      () => ({
        program: { language: 'bash', code: 'true' },
        ...{ env: { BASH_ENV: '/work/flood.sh' }, files: [file('flood.sh', FLOOD_SHELL)] },
      }),
    ],
    [
      'NODE_OPTIONS',
      () => ({
        program: { language: 'javascript', code: '' },
        ...{ env: { NODE_OPTIONS: '--require /work/flood.cjs' }, files: [file('flood.cjs', FLOOD_NODE)] },
      }),
    ],
    [
      'PYTHONPATH',
      () => ({
        program: { language: 'python', code: '' },
        ...{ env: { PYTHONPATH: '/work' }, files: [file('sitecustomize.py', FLOOD_PYTHON)] },
      }),
    ],
  ];
  // Optional, since a compiler is not needed for anything else.
  if (existsSync('/usr/bin/gcc'))
    floods.push([
      'LD_PRELOAD',
      () => {
        const [source, library] = [path.join(folder, 'flood.c'), path.join(folder, 'flood.so')];
        writeFileSync(source, FLOOD_C);
        execFileSync('/usr/bin/gcc', ['-shared', '-fPIC', '-o', library, source]);
        return {
          program: { command: 'true' },
          ...{ env: { LD_PRELOAD: '/work/flood.so' }, files: [file('flood.so', readFileSync(library))] },
        };
      },
    ]);

  it.each(floods)(
    'do not load this process with code that writes 128 MB everywhere: %s',
    async (_name, job) => {
      const created = job();
      await runLocally(runner, {});
      const before = process.memoryUsage.rss();
      const delays = monitorEventLoopDelay();
      delays.enable();
      const { exit } = await runLocally(runner, created);
      delays.disable();
      expect(exit).toMatchObject({ cause: 'output_limit', cleanup: 'verified' });
      expect(delays.max / 1e6).toBeLessThan(MAX_STALL_MS);
      expect(process.memoryUsage.rss() - before).toBeLessThan(MAX_GROWTH_BYTES);
    },
  );

  it('are refused if a shell could not set them', async () => {
    for (const name of ['', '1A', 'A B', 'A;id', 'A\nB', 'Ä', 'A='])
      expect((await runLocally(runner, { env: { [name]: 'x' } })).exit).toMatchObject({
        cause: 'infrastructure',
      });
  });

  it('a sandbox that reports without end is killed, with a clear error', async () => {
    const script = `#!/bin/bash\ncase "$*" in *self-test-*) exec /usr/bin/bwrap "$@" ;; esac\nexec cat /dev/zero >&3\n`;
    const bwrap = path.join(folder, 'bwrap');
    writeFileSync(bwrap, script, { mode: 0o755 });
    execFileSync('chmod', ['755', folder]);
    const before = process.memoryUsage.rss();
    const { exit } = await runLocally(localRunner({ bwrap }), {});
    expect(exit).toMatchObject({
      ...{ cause: 'infrastructure', cleanup: 'verified' },
      message: expect.stringMatching(/could not be created/),
    });
    expect(process.memoryUsage.rss() - before).toBeLessThan(MAX_GROWTH_BYTES);
  });
});
