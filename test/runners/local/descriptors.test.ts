import { afterEach, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { describeOn } from '../../support/hosts.ts';
import { listLeaks } from './leaks.ts';

/** An instance of the product that shows what is open in a sandbox, and in itself. */
const INSTANCE = `
  const [, running] = process.argv;
  const { localRunner, runLocally } = await import(running);
  const { listInheritableDescriptors } = await import(running.replace('test/runners/local/running.ts', 'src/runners/local/descriptors.ts'));
  const { text, exit } = await runLocally(localRunner(), { program: { command: 'ls -l /proc/self/fd' } });
  process.stdout.write(JSON.stringify({ text, exit, inheritable: listInheritableDescriptors() }));
`;
/**
 * Starts its arguments with a pipe at 40 and 41, a socket at 50, and a file at 300. Node marks inherited descriptors as
 * close-on-exec only up to the first gap.
 */
const WITH_DESCRIPTORS = [
  'use Socket; use POSIX ();',
  'pipe(R, W); socketpair(A, B, AF_UNIX, SOCK_STREAM, 0); open(F, "<", "/etc/hostname");',
  'POSIX::dup2(fileno(R), 40); POSIX::dup2(fileno(W), 41); POSIX::dup2(fileno(A), 50); POSIX::dup2(fileno(F), 300);',
  'exec { $ARGV[0] } @ARGV;',
].join(' ');

describeOn('local', 'the descriptors of a local run', () => {
  afterEach(() => expect(listLeaks()).toEqual([]));

  it('are its three streams, whatever the app was started with', async () => {
    const running = path.join(import.meta.dirname, 'running.ts');
    const node = [process.execPath, '--input-type=module', '-e', INSTANCE, running];
    const child = spawn('/usr/bin/perl', ['-e', WITH_DESCRIPTORS, ...node], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const result = JSON.parse(await text(child.stdout)) as Record<string, unknown>;
    expect(result['inheritable']).toEqual(expect.arrayContaining([40, 41, 50, 300]));
    expect(result['exit']).toMatchObject({ code: 0, message: null });
    const open = [...String(result['text']).matchAll(/ (\d+) -> (.*)$/gm)].map(([, number, target]) => [
      number,
      target?.replace(/\d+/g, 'n'),
    ]);
    expect(open).toEqual([
      ['0', '/dev/null'],
      ['1', expect.stringContaining('/pipe (deleted)')],
      ['2', expect.stringContaining('/pipe (deleted)')],
      // The folder that ls lists.
      ['3', '/proc/n/fd'],
    ]);
  });
});
