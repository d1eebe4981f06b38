/** What the probe is told; all of it may be known to a program. */
export interface ProbeInput {
  nonce: string;
  /** Folders and files of the product. */
  paths: readonly string[];
  /** Where the product listens for it: ports of loopback and paths of sockets, also abstract ones. */
  sockets: readonly (string | number)[];
  /** The product's own process, by its id outside. */
  pid: number;
  /** The numbers of the system calls that are denied. */
  syscalls: readonly number[];
}

/** What the probe saw. Whether that is an escape is judged outside, where it cannot be forged by accident. */
export interface ProbeFindings {
  nonce: string;
  /** Those of the paths that held something. */
  readable: string[];
  connected: (string | number)[];
  /** Names of variables in the environments of all processes that can be seen. */
  variables: string[];
  /** What stands in `/proc` for the process that has that id here; empty where there is none. */
  processStat: string;
  /** By name, as `/proc/self/ns` tells them. */
  namespaces: Record<string, string>;
  /** Of `/proc/self/status`: rights and filters. */
  processStatus: Record<string, string>;
  /** Names in the root folder, and in `/run`. */
  entries: string[];
  /** What is mounted. */
  mounts: { at: string; kind: string; readOnly: boolean }[];
  /** Folders of the system in which a file could be made. */
  writable: string[];
  interfaces: string[];
  /** Sockets and files that were open when it started. */
  descriptors: string[];
  /** The error numbers of the calls, or `ok`; empty where no program is there to make them. */
  syscallErrors: string[];
}

/**
 * Runs inside of the sandbox, as text: it may name nothing that lies outside of its own braces. It tries what
 * a hostile program would try first, and tells what it saw as one line of JSON.
 */
export async function probe(input: ProbeInput): Promise<void> {
  const fs = process.getBuiltinModule('node:fs');
  const net = process.getBuiltinModule('node:net');
  const os = process.getBuiltinModule('node:os');
  const { spawnSync } = process.getBuiltinModule('node:child_process');

  function tryOrDefault<T>(look: () => T, otherwise: T): T {
    try {
      return look();
    } catch {
      return otherwise;
    }
  }
  const list = (folder: string) => tryOrDefault(() => fs.readdirSync(folder), []);
  const read = (file: string) => tryOrDefault(() => fs.readFileSync(file, 'latin1'), '');
  const link = (name: string) => tryOrDefault(() => fs.readlinkSync(name), '');
  const processes = list('/proc').filter((name) => /^\d+$/.test(name));

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

  /** Perl belongs to Debian's smallest system; Python comes close. */
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
    descriptors: list('/proc/self/fd')
      .filter((name) => !['0', '1', '2'].includes(name))
      .map((name) => link(`/proc/self/fd/${name}`))
      .filter((name) => /^(socket:|\/(?!dev\/(null|u?random)$|proc\/\d+\/fd$))/.test(name)),
    syscallErrors: makeSyscalls(),
  };
  process.stdout.write(JSON.stringify(findings));
}
