/** Input of the probe. It contains no secrets: a program could read all of it. */
export interface ProbeInput {
  nonce: string;
  /** Folders and files of the product. */
  paths: readonly string[];
  /**
   * Sockets that the product opened so that an escape can be detected: loopback ports and socket paths, also abstract
   * ones.
   */
  sockets: readonly (string | number)[];
  /** The id of the product's process outside the sandbox. */
  pid: number;
  /** The numbers of the denied system calls. */
  syscalls: readonly number[];
}

/** What the probe found. The self-test decides outside the sandbox whether that is an escape. */
export interface ProbeFindings {
  nonce: string;
  /** The paths that were readable and not empty. */
  readable: string[];
  connected: (string | number)[];
  /** Names of the variables in the environments of all visible processes. */
  variables: string[];
  /** `/proc/<pid>/stat` of the process with the product's id inside the sandbox; empty if there is none. */
  processStat: string;
  /** By name, as in `/proc/self/ns`. */
  namespaces: Record<string, string>;
  /** Capabilities, NoNewPrivs and Seccomp of `/proc/self/status`. */
  processStatus: Record<string, string>;
  /** Entries of `/` and `/run`. */
  entries: string[];
  mounts: { at: string; kind: string; readOnly: boolean }[];
  /** System folders in which a file could be created. */
  writable: string[];
  interfaces: string[];
  /** What is open above standard error at the start, of every kind, and in the first process of the sandbox. */
  descriptors: string[];
  /** The errno of each system call, or `ok`; empty when no program can make them. */
  syscallErrors: string[];
}

/** In the sandbox: the output of `ls -l /proc/self/fd`, written before the probe starts. */
export const DESCRIPTORS_FILE = '/work/descriptors';

/**
 * Runs in the sandbox. It is passed there as text, so it may use nothing declared outside its body. It tries what a
 * hostile program would try first, and prints its findings as one line of JSON.
 */
export async function probe(input: ProbeInput, descriptorsFile: string): Promise<void> {
  const fs = process.getBuiltinModule('node:fs');
  const net = process.getBuiltinModule('node:net');
  const os = process.getBuiltinModule('node:os');
  const { spawnSync } = process.getBuiltinModule('node:child_process');

  function tryOrDefault<T>(read: () => T, fallback: T): T {
    try {
      return read();
    } catch {
      return fallback;
    }
  }
  const list = (folder: string) => tryOrDefault(() => fs.readdirSync(folder), []);
  const read = (file: string) => tryOrDefault(() => fs.readFileSync(file, 'latin1'), '');
  const link = (name: string) => tryOrDefault(() => fs.readlinkSync(name), '');
  const processes = list('/proc').filter((name) => /^\d+$/.test(name));

  /** `ls` itself opens the folder, once. Without its output nothing is known, which is a finding too. */
  function listDescriptors(): string[] {
    const lines = [...read(descriptorsFile).matchAll(/ (\d+) -> (.*)$/gm)];
    const opened = lines.filter(([, number]) => Number(number) > 2).map(([, , target = '']) => target);
    const own = opened.findIndex((target) => /^\/proc\/\d+\/fd$/.test(target));
    const ofFirst = list('/proc/1/fd')
      .filter((name) => Number(name) > 2)
      .map((name) => link(`/proc/1/fd/${name}`))
      .filter((target) => target !== 'anon_inode:[eventfd]');
    return [...(own === -1 ? ['unknown'] : opened.toSpliced(own, 1)), ...ofFirst];
  }

  function connects(socket: string | number): Promise<boolean> {
    return new Promise((resolve) => {
      const connection = typeof socket === 'number' ? net.connect(socket, '127.0.0.1') : net.connect(socket);
      connection.on('connect', () => resolve(true)).on('error', () => resolve(false));
    });
  }

  function canWrite(folder: string): boolean {
    return tryOrDefault(() => {
      const file = `${folder}/ops-center-${input.nonce}`;
      fs.writeFileSync(file, '');
      fs.unlinkSync(file);
      return true;
    }, false);
  }

  /** Needs Perl, which is in Debian's minimal system, or Python. */
  function makeSyscalls(): string[] {
    const perl = 'for (@ARGV) { print syscall($_ + 0, 0, 0, 0, 0, 0) == -1 ? $! + 0 : "ok", " " }';
    const python =
      'import ctypes, sys\nlibc = ctypes.CDLL(None, use_errno=True)\nfor number in sys.argv[1:]: ' +
      'print("ok" if libc.syscall(int(number), 0, 0, 0, 0, 0) != -1 else ctypes.get_errno(), end=" ")';
    const numbers = input.syscalls.map(String);
    for (const [program, option, code] of [
      ['perl', '-e', perl],
      ['python3', '-c', python],
    ] as const) {
      const { stdout, error } = spawnSync(program, [option, code, ...numbers], { encoding: 'utf8' });
      const results = error === undefined ? stdout.trim().split(' ') : [];
      if (results.length === numbers.length) return results;
    }
    return [];
  }

  const connected = [];
  for (const socket of input.sockets) if (await connects(socket)) connected.push(socket);
  const variables = processes
    .flatMap((pid) => read(`/proc/${pid}/environ`).split('\0'))
    .map((variable) => variable.replace(/=.*/s, ''))
    .filter(Boolean);
  const findings: ProbeFindings = {
    nonce: input.nonce,
    readable: input.paths.filter((path) => list(path).length > 0 || read(path) !== ''),
    connected,
    variables: [...new Set(variables)],
    processStat: read(`/proc/${input.pid}/stat`),
    namespaces: Object.fromEntries(
      list('/proc/self/ns').map((name) => [name, link(`/proc/self/ns/${name}`)]),
    ),
    processStatus: Object.fromEntries(
      [...read('/proc/self/status').matchAll(/^(Cap\w+|NoNewPrivs|Seccomp):\s*(\w+)$/gm)].map(
        ([, name = '', value = '']) => [name, value],
      ),
    ),
    entries: [...list('/'), ...list('/run').map((name) => `run/${name}`)],
    mounts: [...read('/proc/self/mountinfo').matchAll(/^(?:\S+ ){4}(\S+) (\S+) .*?- (\S+) /gm)].map(
      ([, at = '', options = '', kind = '']) => ({ at, kind, readOnly: options.split(',').includes('ro') }),
    ),
    writable: ['/', '/dev', '/etc', '/usr', '/run', '/proc', '/proc/sys/kernel'].filter(canWrite),
    interfaces: Object.keys(tryOrDefault(() => os.networkInterfaces(), {})),
    descriptors: listDescriptors(),
    syscallErrors: makeSyscalls(),
  };
  process.stdout.write(JSON.stringify(findings));
}
