import { existsSync } from 'node:fs';
import path from 'node:path';
import type { ServerType } from '../../src/runners/runner.ts';

/** Determines which types of hosts are available. */
export interface HostEnvironment {
  environment: NodeJS.ProcessEnv;
  /** True for root on Linux: the scripts in `test/hosts` can start servers. */
  canStart: boolean;
}

export const HOST_ENVIRONMENT: HostEnvironment = {
  environment: process.env,
  canStart: process.platform === 'linux' && process.getuid?.() === 0,
};

/**
 * Why tests on a type of host are skipped; undefined when they run. Starts nothing.
 * @throws Error in CI, except for Kubernetes, which takes too long to build there
 */
export function findSkipReason(type: ServerType, surroundings: HostEnvironment): string | undefined {
  const reason = findMissingRequirement(type, surroundings);
  const mayBeMissing = surroundings.environment['CI'] === undefined || type === 'kubernetes';
  if (reason !== undefined && !mayBeMissing) throw new Error(`${reason} It must not be skipped in CI.`);
  return reason;
}

/**
 * Reports what is missing for tests on this machine.
 * @throws Error in CI, where nothing may be missing
 */
export function reportMissing(reason: string, environment: NodeJS.ProcessEnv): void {
  if (environment['CI'] !== undefined) throw new Error(`${reason} It must be available in CI.`);
  process.stderr.write(`${reason}\n`);
}

function findMissingRequirement(
  type: ServerType,
  { environment, canStart }: HostEnvironment,
): string | undefined {
  const isNamed = (name: string) => environment[name] !== undefined;
  switch (type) {
    case 'ssh':
      if (canStart || isNamed('TEST_SSH_HOSTS')) return undefined;
      return 'The SSH servers need root on Linux, or TEST_SSH_HOSTS.';
    case 'docker':
      if (canStart || isNamed('TEST_DOCKER_HOST')) return undefined;
      return 'The Docker Engine needs root on Linux, or TEST_DOCKER_HOST.';
    case 'kubernetes':
      return isNamed('TEST_KUBECONFIG') ? undefined : 'TEST_KUBECONFIG is not set.';
    case 'local':
      if (canStart && isOnPath('bwrap', environment['PATH'])) return undefined;
      return 'Running locally needs bubblewrap, and root on Linux.';
  }
}

function isOnPath(program: string, folders = ''): boolean {
  return folders.split(':').some((folder) => existsSync(path.join(folder, program)));
}
