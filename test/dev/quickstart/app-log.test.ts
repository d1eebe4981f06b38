import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { openAppLog } from '../../../src/dev/quickstart/app-log.ts';
import { until } from '../../support/until.ts';

let folder: string;
let messages: string[];
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ops-log-'));
  messages = [];
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

const open = (file: string) => openAppLog(file, (text) => messages.push(text));

describe("the app's log", () => {
  it('is appended to a file that only its owner can read', async () => {
    const file = path.join(folder, 'app.log');
    for (const line of ['one\n', 'two\n']) {
      const log = await open(file);
      log.stream.write(line);
      await log.close();
    }
    expect(readFileSync(file, 'utf8')).toBe('one\ntwo\n');
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  it('refuses the start with a message if it cannot be opened', async () => {
    const file = path.join(folder, 'app.log');
    mkdirSync(file);
    await expect(open(file)).rejects.toThrow(`${file} cannot be written: EISDIR`);
  });

  const onLinux = process.platform === 'linux' ? it : it.skip;
  onLinux('prints one message if it can no longer be written, and the app keeps running', async () => {
    const log = await open('/dev/full');
    log.stream.write('lost\n');
    await until(() => messages.length, Boolean);
    log.stream.write('lost too\n');
    await log.close();
    expect(messages).toEqual([expect.stringMatching(/^\/dev\/full can no longer be written \(ENOSPC/)]);
  });
});
