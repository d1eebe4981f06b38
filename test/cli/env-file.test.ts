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
    const generated = readEnvFile(file);
    expect(generated['ENCRYPTION_KEY']).toMatch(/^[A-Za-z0-9_-]{43}=$/);
    expect(generated['SESSION_SECRET']?.length).toBeGreaterThanOrEqual(32);
  });

  it('are not changed on later starts', () => {
    ensureGeneratedSettings(file, {});
    const first = readFileSync(file, 'utf8');
    expect(ensureGeneratedSettings(file, readEnvFile(file))).toEqual([]);
    expect(readFileSync(file, 'utf8')).toBe(first);
  });

  it('are appended to the file, which is otherwise unchanged', () => {
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

  it.each(['ENCRYPTION_KEY=', 'ENCRYPTION_KEY=""', 'export ENCRYPTION_KEY = ', "ENCRYPTION_KEY=''"])(
    'replace a line without a value: %s',
    (line) => {
      for (const end of ['', '\n']) {
        writeFileSync(file, `PORT=4000\n${line}${end}`);
        ensureGeneratedSettings(file, readEnvFile(file));
        expect(readFileSync(file, 'utf8')).toMatch(
          /^PORT=4000\nENCRYPTION_KEY=[\w-]{43}=\nSESSION_SECRET=[\w-]+\n$/,
        );
      }
    },
  );

  const onLinux = process.platform === 'linux' ? it : it.skip;
  onLinux('are not written into a file whose mode cannot be restricted first', () => {
    // The name of this process: a writable file whose mode cannot be changed.
    const fixedModeFile = '/proc/self/comm';
    const before = readFileSync(fixedModeFile, 'utf8');
    expect(() => ensureGeneratedSettings(fixedModeFile, {})).toThrow('EPERM');
    const after = readFileSync(fixedModeFile, 'utf8');
    writeFileSync(fixedModeFile, before);
    expect(after).toBe(before);
  });

  it('are not generated if they are set in the environment, also as the name of a file', () => {
    const environment = { ENCRYPTION_KEY_FILE: '/run/secrets/key', SESSION_SECRET: 'x'.repeat(32) };
    expect(ensureGeneratedSettings(file, environment)).toEqual([]);
    expect(readEnvFile(file)).toEqual({});
  });
});
