import { describe, expect, it } from '@jest/globals';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { reportMissing, findSkipReason } from '../support/host-availability.ts';

it('a missing requirement is an error in CI', () => {
  expect(() => {
    reportMissing('Nothing is there.', { CI: 'true' });
  }).toThrow('Nothing is there. It must be available in CI.');
});

describe('tests that need a host', () => {
  const nowhere = { environment: { PATH: '/nowhere' }, canStart: false };

  it.each(['ssh', 'docker', 'kubernetes', 'local'] as const)(
    'on %s are skipped with a reason if the host is not available',
    (type) => {
      expect(findSkipReason(type, nowhere)).toMatch(/\w/);
    },
  );

  it.each(['ssh', 'docker', 'local'] as const)('on %s fail in CI instead', (type) => {
    const inCi = { ...nowhere, environment: { ...nowhere.environment, CI: 'true' } };
    expect(() => findSkipReason(type, inCi)).toThrow('It must not be skipped in CI');
    expect(findSkipReason('kubernetes', inCi)).toBe('TEST_KUBECONFIG is not set.');
  });

  it.each([
    ['ssh', 'TEST_SSH_HOSTS'],
    ['docker', 'TEST_DOCKER_HOST'],
    ['kubernetes', 'TEST_KUBECONFIG'],
  ] as const)('on %s run if %s names a host', (type, name) => {
    const environment = { ...nowhere.environment, CI: 'true', [name]: 'somewhere' };
    expect(findSkipReason(type, { ...nowhere, environment })).toBeUndefined();
  });

  it('on SSH servers and Docker run if they can be started', () => {
    for (const type of ['ssh', 'docker'] as const)
      expect(findSkipReason(type, { ...nowhere, canStart: true })).toBeUndefined();
  });

  it('in the local sandbox run if bubblewrap is on the path', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'path-'));
    const there = { environment: { PATH: `/nowhere:${folder}` }, canStart: true };
    expect(findSkipReason('local', there)).toMatch('bubblewrap');
    writeFileSync(path.join(folder, 'bwrap'), '');
    expect(findSkipReason('local', there)).toBeUndefined();
    rmSync(folder, { recursive: true });
  });
});
