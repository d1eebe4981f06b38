import { describe, expect, it } from '@jest/globals';
import { existsSync, readFileSync } from 'node:fs';
import { createSeccompFilter } from '../../../src/runners/local/seccomp.ts';
import {
  getConditionalSyscallNumber,
  DENIED_SYSCALLS,
  listDeniedSyscallNumbers,
  type Architecture,
} from '../../../src/runners/local/syscalls.ts';
import { reportMissing } from '../../support/host-availability.ts';

const AUDIT_ARCH = { x64: 0xc000_003e, arm64: 0xc000_00b7 };
const [ALLOW, KILL, EPERM, ENOSYS, EAFNOSUPPORT] = [0x7fff_0000, 0x8000_0000, 0x5_0001, 0x5_0026, 0x5_0061];
const HEADERS = {
  x64: '/usr/include/x86_64-linux-gnu/asm/unistd_64.h',
  arm64: '/usr/include/asm-generic/unistd.h',
};

interface Call {
  number: number;
  arch?: number;
  arguments?: readonly bigint[];
}

/** Evaluates the filter as the kernel does, also for architectures other than this machine's. */
function decide(architecture: Architecture, call: Call): number {
  const filter = createSeccompFilter(architecture);
  const data = Buffer.alloc(64);
  data.writeUInt32LE(call.number, 0);
  data.writeUInt32LE(call.arch ?? AUDIT_ARCH[architecture], 4);
  for (const [index, value] of (call.arguments ?? []).entries()) data.writeBigUInt64LE(value, 16 + 8 * index);
  let accumulator = 0;
  for (let offset = 0; ; offset += 8) {
    const operand = filter.readUInt32LE(offset + 4);
    const jump = (holds: boolean) => 8 * filter.readUInt8(offset + (holds ? 2 : 3));
    switch (filter.readUInt16LE(offset)) {
      case 0x20:
        accumulator = data.readUInt32LE(operand);
        break;
      case 0x54:
        accumulator = (accumulator & operand) >>> 0;
        break;
      case 0x15:
        offset += jump(accumulator === operand);
        break;
      case 0x35:
        offset += jump(accumulator >= operand);
        break;
      case 0x06:
        return operand;
      default:
        throw new Error('unexpected BPF instruction');
    }
  }
}

describe.each(['x64', 'arm64'] as const)('the seccomp filter for %s', (architecture) => {
  const number = (name: Parameters<typeof getConditionalSyscallNumber>[0]) =>
    getConditionalSyscallNumber(name, architecture);

  it('denies every listed call with any arguments', () => {
    for (const denied of listDeniedSyscallNumbers(architecture)) {
      expect(decide(architecture, { number: denied })).toBe(EPERM);
      expect(decide(architecture, { number: denied, arguments: [1n, 2n, 3n] })).toBe(EPERM);
    }
  });

  it('allows all other calls', () => {
    const special = ['clone3', 'socket'] as const;
    const denied = new Set([...listDeniedSyscallNumbers(architecture), ...special.map(number)]);
    for (let each = 0; each < 500; each += 1)
      if (!denied.has(each)) expect(decide(architecture, { number: each })).toBe(ALLOW);
  });

  it('kills calls with the numbers of another architecture', () => {
    const other = AUDIT_ARCH[architecture === 'x64' ? 'arm64' : 'x64'];
    for (const arch of [other, 0x4000_0003, 0x4000_0028, 0])
      expect(decide(architecture, { number: 1, arch })).toBe(KILL);
  });

  it('allows threads and child processes, but no new namespaces', () => {
    const threads = 0x3d0f00n;
    const child = 0x1200011n;
    for (const flags of [threads, child, 17n])
      expect(decide(architecture, { number: number('clone'), arguments: [flags] })).toBe(ALLOW);
    for (const bit of [17n, 25n, 26n, 27n, 28n, 29n, 30n])
      for (const flags of [1n << bit, (1n << bit) | threads])
        expect(decide(architecture, { number: number('clone'), arguments: [flags] })).toBe(EPERM);
    expect(decide(architecture, { number: number('clone3') })).toBe(ENOSYS);
  });

  it('denies terminal input injection, also with bits above 32 set', () => {
    const ioctl = (request: bigint) =>
      decide(architecture, { number: number('ioctl'), arguments: [0n, request] });
    expect(ioctl(0x5412n)).toBe(EPERM);
    expect(ioctl(0xffff_ffff_0000_5412n)).toBe(EPERM);
    expect(ioctl(0x541cn)).toBe(EPERM);
    expect(ioctl(0x5401n)).toBe(ALLOW);
  });

  it('allows sockets of the usual families only', () => {
    const socket = (family: bigint) =>
      decide(architecture, { number: number('socket'), arguments: [family] });
    for (const family of [1n, 2n, 10n, 16n]) expect(socket(family)).toBe(ALLOW);
    for (const family of [0n, 17n, 38n, 40n, 44n]) expect(socket(family)).toBe(EAFNOSUPPORT);
  });
});

it('kills calls with x32 numbers', () => {
  expect(decide('x64', { number: 0x4000_0000 + 520 })).toBe(KILL);
  expect(decide('x64', { number: 0xffff_ffff })).toBe(KILL);
});

for (const [architecture, file] of Object.entries(HEADERS)) {
  // The header of arm64 is the generic one and on every Linux. The header of x64 is on x64 only.
  if (!existsSync(file) && (architecture === 'arm64' || architecture === process.arch))
    reportMissing(
      `The numbers of calls on ${architecture} are not compared: there is no ${file}.`,
      process.env,
    );
  (existsSync(file) ? it : it.skip)(`has the numbers of the kernel's own header for ${architecture}`, () => {
    const header = readFileSync(file, 'latin1');
    const numberOf = (name: string) => {
      const found = new RegExp(`#define __NR(?:3264)?_${name}\\s+(\\d+)`).exec(header)?.[1];
      return found === undefined ? null : Number(found);
    };
    const column = architecture === 'x64' ? 0 : 1;
    for (const [name, numbers] of Object.entries(DENIED_SYSCALLS))
      expect([name, numbers[column]]).toEqual([name, numberOf(name)]);
    for (const name of ['clone', 'clone3', 'ioctl', 'socket'] as const)
      expect([name, getConditionalSyscallNumber(name, architecture as Architecture)]).toEqual([
        name,
        numberOf(name),
      ]);
  });
}
