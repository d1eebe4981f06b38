import { getConditionalSyscallNumber, listDeniedSyscallNumbers, type Architecture } from './syscalls.ts';

/** One instruction of classic BPF, as the kernel's `struct sock_filter`. */
type Instruction = readonly [code: number, jumpTrue: number, jumpFalse: number, operand: number];

/** linux/bpf_common.h */
const LOAD_WORD = 0x20;
const AND = 0x54;
const JUMP_IF_EQUAL = 0x15;
const JUMP_IF_AT_LEAST = 0x35;
const RETURN = 0x06;

/** linux/seccomp.h */
const KILL_PROCESS = 0x8000_0000;
const ALLOW = 0x7fff_0000;
const ERRNO = 0x0005_0000;

const EPERM = 1;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;

/** linux/audit.h; both are little-endian. */
const AUDIT_ARCH: Record<Architecture, number> = { x64: 0xc000_003e, arm64: 0xc000_00b7 };
/** From here on the numbers are those of x32, whose numbers for the denied calls differ. */
const X32_BIT = 0x4000_0000;

/** Offsets in `struct seccomp_data`; for an argument, of its lower half. */
const SYSCALL_NUMBER_OFFSET = 0;
const ARCHITECTURE_OFFSET = 4;
const toArgumentOffset = (index: number) => 16 + 8 * index;

/** CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID and -NET. */
const NEW_NAMESPACE_FLAGS = 0x7e02_0000;
/** Both inject input into a terminal. */
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;
/** AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Others bypass the network namespace (AF_VSOCK) or reach drivers. */
const SOCKET_FAMILIES = [1, 2, 10, 16];

/**
 * Creates the seccomp filter of a sandbox, in the format of `bwrap --seccomp`. Denied calls fail with EPERM, so that
 * programs can continue without them. A call with the numbers of another architecture kills the process.
 */
export function createSeccompFilter(architecture: Architecture): Buffer {
  const number = (name: Parameters<typeof getConditionalSyscallNumber>[0]) =>
    getConditionalSyscallNumber(name, architecture);
  return assemble([
    [LOAD_WORD, 0, 0, ARCHITECTURE_OFFSET],
    ...returnUnless(JUMP_IF_EQUAL, AUDIT_ARCH[architecture], KILL_PROCESS),
    [LOAD_WORD, 0, 0, SYSCALL_NUMBER_OFFSET],
    ...(architecture === 'x64' ? returnWhen(JUMP_IF_AT_LEAST, X32_BIT, KILL_PROCESS) : []),
    ...listDeniedSyscallNumbers(architecture).flatMap((denied) =>
      returnWhen(JUMP_IF_EQUAL, denied, ERRNO | EPERM),
    ),
    // The flags of clone3 are in memory, which a filter cannot read. On ENOSYS libraries fall back to clone.
    ...returnWhen(JUMP_IF_EQUAL, number('clone3'), ERRNO | ENOSYS),
    ...forSyscall(number('clone'), [
      [LOAD_WORD, 0, 0, toArgumentOffset(0)],
      [AND, 0, 0, NEW_NAMESPACE_FLAGS],
      ...returnUnless(JUMP_IF_EQUAL, 0, ERRNO | EPERM),
      [RETURN, 0, 0, ALLOW],
    ]),
    ...forSyscall(number('ioctl'), [
      [LOAD_WORD, 0, 0, toArgumentOffset(1)],
      ...returnWhen(JUMP_IF_EQUAL, TIOCSTI, ERRNO | EPERM),
      ...returnWhen(JUMP_IF_EQUAL, TIOCLINUX, ERRNO | EPERM),
      [RETURN, 0, 0, ALLOW],
    ]),
    ...forSyscall(number('socket'), [
      [LOAD_WORD, 0, 0, toArgumentOffset(0)],
      ...SOCKET_FAMILIES.flatMap((family) => returnWhen(JUMP_IF_EQUAL, family, ALLOW)),
      [RETURN, 0, 0, ERRNO | EAFNOSUPPORT],
    ]),
    [RETURN, 0, 0, ALLOW],
  ]);
}

function returnWhen(jump: number, operand: number, result: number): Instruction[] {
  return [
    [jump, 0, 1, operand],
    [RETURN, 0, 0, result],
  ];
}

function returnUnless(jump: number, operand: number, result: number): Instruction[] {
  return [
    [jump, 1, 0, operand],
    [RETURN, 0, 0, result],
  ];
}

/** Applies `body` to one system call only; `body` returns on every path. */
function forSyscall(number: number, body: readonly Instruction[]): Instruction[] {
  return [[JUMP_IF_EQUAL, 0, body.length, number], ...body];
}

function assemble(instructions: readonly Instruction[]): Buffer {
  const bytes = Buffer.alloc(8 * instructions.length);
  for (const [index, [code, jumpTrue, jumpFalse, operand]] of instructions.entries()) {
    bytes.writeUInt16LE(code, 8 * index);
    bytes.writeUInt8(jumpTrue, 8 * index + 2);
    bytes.writeUInt8(jumpFalse, 8 * index + 3);
    bytes.writeUInt32LE(operand >>> 0, 8 * index + 4);
  }
  return bytes;
}
