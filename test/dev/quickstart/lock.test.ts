import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { acquireLock } from '../../../src/dev/quickstart/lock.ts';
import { findStartTime } from '../../../src/dev/quickstart/processes.ts';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ops-lock-'));
  file = path.join(folder, 'lock');
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});
const take = (waitMs = 0) => acquireLock({ file, waitMs, busyMessage: (pid) => `held by ${pid}` });

describe('the lock of a data directory', () => {
  it('is refused with the id of the holder while its process runs', async () => {
    const release = await take();
    await expect(take()).rejects.toThrow(`held by ${process.pid}`);
    release();
    expect(readdirSync(folder)).toEqual([]);
  });

  it('is free after its process was killed', async () => {
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { stdio: 'ignore' });
    await once(child, 'spawn');
    const pid = child.pid ?? 0;
    writeFileSync(file, JSON.stringify({ pid, mark: findStartTime(pid) }));
    await expect(take()).rejects.toThrow(`held by ${pid}`);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const release = await take();
    release();
  });

  it('is free if its process id now belongs to another process', async () => {
    writeFileSync(file, JSON.stringify({ pid: process.pid, mark: 'an earlier start' }));
    const release = await take();
    release();
    expect(existsSync(file)).toBe(false);
  });

  it('is free if the file is damaged', async () => {
    writeFileSync(file, '{"pid":');
    (await take())();
  });

  it('is acquired by one of several processes that find the same stale lock', async () => {
    writeFileSync(file, JSON.stringify({ pid: process.pid, mark: 'an earlier start' }));
    const taken = await Promise.allSettled(Array.from({ length: 8 }, () => take()));
    expect(taken.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  it('is acquired after a wait if a wait is allowed', async () => {
    const release = await take();
    const waiting = take(10_000);
    release();
    (await waiting)();
  });
});
