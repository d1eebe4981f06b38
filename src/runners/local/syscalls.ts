export type Architecture = 'x64' | 'arm64';

/** System call numbers of Linux; null if the architecture has no such call. */
type SyscallNumbers = readonly [x64: number | null, arm64: number | null];

/**
 * System calls that programs do not need for computing and that led out of other sandboxes: inspecting processes,
 * mounting, creating namespaces, kernel keys, loading kernel code, setting the clock, and io_uring, whose operations
 * bypass seccomp filters.
 */
export const DENIED_SYSCALLS: Readonly<Record<string, SyscallNumbers>> = {
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  process_madvise: [440, 440],
  pidfd_getfd: [438, 438],
  kcmp: [312, 272],
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  setns: [308, 268],
  unshare: [272, 97],
  add_key: [248, 217],
  request_key: [249, 218],
  keyctl: [250, 219],
  bpf: [321, 280],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  io_uring_setup: [425, 425],
  io_uring_enter: [426, 426],
  io_uring_register: [427, 427],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  reboot: [169, 142],
  swapon: [167, 224],
  swapoff: [168, 225],
  name_to_handle_at: [303, 264],
  open_by_handle_at: [304, 265],
  lookup_dcookie: [212, 18],
  quotactl: [179, 60],
  quotactl_fd: [443, 443],
  acct: [163, 89],
  syslog: [103, 116],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  clock_adjtime: [305, 266],
  adjtimex: [159, 171],
  fanotify_init: [300, 262],
  vhangup: [153, 58],
  sethostname: [170, 161],
  setdomainname: [171, 162],
  nfsservctl: [180, 42],
  iopl: [172, null],
  ioperm: [173, null],
  modify_ldt: [154, null],
  uselib: [134, null],
  _sysctl: [156, null],
  create_module: [174, null],
  get_kernel_syms: [177, null],
  query_module: [178, null],
  ustat: [136, null],
  sysfs: [139, null],
};

/** System calls that are allowed or denied by their arguments. */
const CONDITIONAL_SYSCALLS = {
  clone: [56, 220],
  clone3: [435, 435],
  ioctl: [16, 29],
  socket: [41, 198],
} as const satisfies Record<string, SyscallNumbers>;

export function getConditionalSyscallNumber(
  name: keyof typeof CONDITIONAL_SYSCALLS,
  architecture: Architecture,
): number {
  return CONDITIONAL_SYSCALLS[name][architecture === 'x64' ? 0 : 1];
}

/** The numbers of all system calls that are denied with any arguments. */
export function listDeniedSyscallNumbers(architecture: Architecture): number[] {
  const column = architecture === 'x64' ? 0 : 1;
  return Object.values(DENIED_SYSCALLS).flatMap((numbers) => numbers[column] ?? []);
}
