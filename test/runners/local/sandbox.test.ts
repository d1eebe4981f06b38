import { afterEach, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describeOn } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import { listLeaks, listSandboxProcesses, localTarget } from './leaks.ts';
import { localRunner, runLocally } from './running.ts';

describeOn('local', 'the sandbox of the local runner', () => {
  const runner = localRunner();
  const sh = (command: string) => runLocally(runner, { program: { command } });
  const python = (code: string) => runLocally(runner, { program: { language: 'python', code } });
  afterEach(() => expect(listLeaks()).toEqual([]));

  it('passes a program only the variables that were set for it', async () => {
    const { text } = await runLocally(runner, { program: { command: 'env' }, env: { MINE: 'mine' } });
    const names = text
      .trim()
      .split('\n')
      .map((line) => line.replace(/=.*/, ''));
    expect(names.sort()).toEqual(
      ['HOME', 'LANG', 'MINE', 'OPS_CENTER_RUN', 'PATH', 'PWD', 'TMPDIR', 'OLDPWD'].sort(),
    );
  });

  it('runs a program with an unused user id and without capabilities', async () => {
    let uids: (string | undefined)[] = [];
    const command = "echo ready; read -r line; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status";
    const { text } = await runLocally(runner, { program: { command } }, () => {
      uids = listSandboxProcesses(process.pid).map(
        (pid) => /^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1],
      );
    });
    for (const uid of uids) expect(Number(uid)).toBeGreaterThanOrEqual(1_900_000_000);
    expect(text.match(/^Cap\w+:\t0+$/gm)).toHaveLength(5);
    expect(text).toMatch(/^NoNewPrivs:\t1$/m);
    expect(text).toMatch(/^Seccomp:\t2$/m);
  });

  it('shows a program only the programs of this machine', async () => {
    const { text } = await sh(
      'ls -A / /etc /run /work /tmp; touch /x /usr/x /etc/x 2>&1; ls /proc | grep -c "^[0-9]"',
    );
    expect(text).not.toMatch(/home|root|var|srv|boot|sys\n|passwd-|shadow/);
    expect(text.match(/Read-only file system/g)).toHaveLength(3);
    // The first process of the sandbox, the shell, ls and grep.
    expect(text.trim().split('\n').at(-1)).toMatch(/^[2-5]$/);
  });

  it('hides the product’s folders and files within visible folders', async () => {
    const folder = mkdtempSync('/usr/local/share/ops-center-test-');
    try {
      for (const name of ['.env', 'other'])
        writeFileSync(path.join(folder, name), 'product', { mode: 0o644 });
      chmodSync(folder, 0o755);
      const job = { program: { command: `cat ${folder}/.env ${folder}/other; ls -A ${folder}` } };
      expect((await runLocally(runner, job)).text).toMatch(/productproduct.*other/s);
      const folderHidden = await runLocally(localRunner({ hiddenPaths: [folder] }), job);
      expect(folderHidden.text).not.toContain('product');
      expect(folderHidden.text).not.toMatch(/^other$/m);
      const fileHidden = await runLocally(localRunner({ hiddenPaths: [path.join(folder, '.env')] }), job);
      expect(fileHidden.text.match(/product/g)).toHaveLength(1);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('does not show the data of a program in the process list', async () => {
    const secret = `value-${randomUUID()}`;
    const job = {
      program: { language: 'bash', code: `echo ready; : ${secret}; sleep 1000` },
      ...{ env: { SECRET: secret }, stdin: Buffer.from(secret) },
      files: [{ path: 'file', content: Buffer.from(secret) }],
    } as const;
    const shown = await new Promise<string[]>((resolve, reject) => {
      runLocally(runner, job, () => {
        resolve(listCommandLines());
        throw new Error('seen enough');
      }).catch((error: unknown) =>
        (error as Error).message === 'seen enough' ? undefined : reject(error as Error),
      );
    });
    expect(shown.length).toBeGreaterThan(10);
    expect(shown.filter((line) => line.includes(secret))).toEqual([]);
    await until(listLeaks, (left) => left.length === 0);
  });

  it('denies dangerous system calls on this kernel', async () => {
    const { text } = await python(
      [
        'import ctypes, socket',
        'libc = ctypes.CDLL(None, use_errno=True)',
        'def call(*args):',
        '    ctypes.set_errno(0)',
        '    result = libc.syscall(*args)',
        '    print(args[0], "ok" if result != -1 else ctypes.get_errno())',
        'call(101, 0, 0, 0, 0)', // ptrace(PTRACE_TRACEME)
        'call(272, 0x10000000)', // unshare(CLONE_NEWUSER)
        'call(56, 0x10000000 | 17, 0, 0, 0, 0)', // clone(CLONE_NEWUSER)
        'call(435, 0, 0)', // clone3
        'call(250, 0, 0xfffffffd, 0)', // keyctl
        'call(425, 1, 0)', // io_uring_setup
        'call(16, 0, 0x5412, 0)', // ioctl(TIOCSTI)
        'call(41, 40, 1, 0)', // socket(AF_VSOCK)
        'print(socket.socket().fileno() > 0)',
      ].join('\n'),
    );
    const results = { 101: 1, 272: 1, 56: 1, 435: 38, 250: 1, 425: 1, 16: 1, 41: 97 };
    const lines = text.trim().split('\n');
    if (process.arch === 'x64')
      expect(lines).toEqual(
        expect.arrayContaining(Object.entries(results).map(([call, errno]) => `${call} ${errno}`)),
      );
    expect(lines.at(-1)).toBe('True');
  });

  it('kills a program that uses x32 system call numbers', async () => {
    if (process.arch !== 'x64') return;
    const { exit } = await python('import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 39)');
    // 128 and SIGSYS.
    expect(exit).toMatchObject({ cause: 'exited', code: 159 });
  });

  it('limits the size of its folders', async () => {
    const { text, exit } = await sh('head -c 400000000 /dev/zero > file 2>&1; stat -c %s file; exit 4');
    expect(Number(/^(\d+)$/m.exec(text)?.[1])).toBeLessThanOrEqual(256 * 2 ** 20);
    expect(exit).toMatchObject({ cause: 'exited', code: 4 });
  });

  it('lets programs reopen their streams, as scripts do', async () => {
    const command = 'cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr';
    const { text, exit } = await runLocally(runner, { program: { command }, stdin: Buffer.from('in\n') });
    expect(text.split('\n').sort()).toEqual(['', 'err', 'in', 'out']);
    expect(exit.code).toBe(0);
  });

  it('does not overwrite a file of the job with the name of the code file', async () => {
    const files = [{ path: 'main.py', content: Buffer.from('WORD = "theirs"') }];
    const program = { language: 'python', code: 'import main; print(main.WORD)' } as const;
    expect((await runLocally(runner, { program, files })).text).toBe('theirs\n');
  });

  it('refuses files outside the folder, and NUL characters in names and values', async () => {
    const content = Buffer.from('x');
    for (const job of [
      { files: [{ path: '../usr/x', content }] },
      { files: [{ path: '/etc/x', content }] },
      { files: [{ path: '.', content }] },
      { env: { VALUE: 'x\0--share-net' } },
      { files: [{ path: 'x\0--share-net', content }] },
    ])
      expect((await runLocally(runner, job)).exit).toMatchObject({ cause: 'infrastructure' });
  });

  it('ends with the instance that created it, and another instance cleans up', async () => {
    const runId = randomUUID();
    const running = path.join(import.meta.dirname, 'running.ts');
    const instance = spawn(process.execPath, ['--input-type=module', '-e', INSTANCE, running, runId], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(instance.stdout, 'data');
    expect(listSandboxProcesses(Number(instance.pid))).not.toEqual([]);
    instance.kill('SIGKILL');
    await once(instance, 'exit');
    await until(
      () => listCommandLines().filter((line) => line.includes(runId)),
      (left) => left.length === 0,
    );
    expect(await runner.cleanUp(localTarget(), runId)).toBe('verified');
  });
});

/** An instance of the product that runs a program that ignores signals. */
const INSTANCE = `
  const [, running, runId] = process.argv;
  const { localRunner, runLocally } = await import(running);
  const child = 'trap "" HUP TERM; echo ready; while :; do sleep 1; done';
  const program = { command: \`setsid sh -c '\${child}' & wait\` };
  await runLocally(localRunner(), { runId, program }, (text) => void process.stdout.write(text));
`;

function listCommandLines(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      } catch {
        return '';
      }
    });
}
