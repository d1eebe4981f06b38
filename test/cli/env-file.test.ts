import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ensureGeneratedSettings, readEnvFile } from '../../src/cli/env-file.ts';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ops-env-'));
  file = path.join(folder, '.env');
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

describe('the generated settings', () => {
  it('are written once into a file that only its owner can read', () => {
    expect(ensureGeneratedSettings(file, {})).toEqual(['ENCRYPTION_KEY', 'SESSION_SECRET']);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const made = readEnvFile(file);
    expect(made['ENCRYPTION_KEY']).toMatch(/^[A-Za-z0-9_-]{43}=$/);
    expect(made['SESSION_SECRET']?.length).toBeGreaterThanOrEqual(32);
  });

  it('stay what they are on later starts', () => {
    ensureGeneratedSettings(file, {});
    const first = readFileSync(file, 'utf8');
    expect(ensureGeneratedSettings(file, readEnvFile(file))).toEqual([]);
    expect(readFileSync(file, 'utf8')).toBe(first);
  });

  it('are added below what the file holds, which stays byte for byte', () => {
    const before = '# mine\nPORT=4000\nSESSION_SECRET=my-own-secret-of-more-than-32-characters';
    writeFileSync(file, before, { mode: 0o644 });
    expect(ensureGeneratedSettings(file, readEnvFile(file))).toEqual(['ENCRYPTION_KEY']);
    expect(readFileSync(file, 'utf8').startsWith(`${before}\nENCRYPTION_KEY=`)).toBe(true);
    expect(readEnvFile(file)).toMatchObject({
      PORT: '4000',
      SESSION_SECRET: 'my-own-secret-of-more-than-32-characters',
    });
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  const onLinux = process.platform === 'linux' ? it : it.skip;
  onLinux('are not written into a file that cannot be closed to others first', () => {
    // The name of this process: a file that takes text, and whose mode nobody can change.
    const open = '/proc/self/comm';
    const before = readFileSync(open, 'utf8');
    expect(() => ensureGeneratedSettings(open, {})).toThrow('EPERM');
    const after = readFileSync(open, 'utf8');
    writeFileSync(open, before);
    expect(after).toBe(before);
  });

  it('are not made when they are set elsewhere, be it as the name of a file', () => {
    const environment = { ENCRYPTION_KEY_FILE: '/run/secrets/key', SESSION_SECRET: 'x'.repeat(32) };
    expect(ensureGeneratedSettings(file, environment)).toEqual([]);
    expect(readEnvFile(file)).toEqual({});
  });
});
