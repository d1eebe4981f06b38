import { afterAll, describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CHECK_FOLDER } from '../../../src/runners/kubernetes/staged-test.ts';

describe('the script that checks the workspace of a pod, in an image that has a shell alone', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-workspace-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const check = (workspace: string, file: string) =>
    spawnSync('/bin/sh', ['-c', CHECK_FOLDER, 'sh', workspace, file], {
      env: { PATH: '' },
      encoding: 'utf8',
    });

  it('passes a folder in which it has written the file', () => {
    expect(check(folder, 'file')).toMatchObject({ status: 0, stderr: '' });
    expect(existsSync(path.join(folder, 'file'))).toBe(true);
  });

  it('reports a folder that does not exist', () => {
    expect(check(path.join(folder, 'missing'), 'file').status).toBe(2);
  });

  it('reports a folder in which the file cannot be written', () => {
    // For root too, no file can have the name of a folder.
    mkdirSync(path.join(folder, 'taken'));
    expect(check(folder, 'taken')).toMatchObject({ status: 3, stderr: '' });
  });
});
