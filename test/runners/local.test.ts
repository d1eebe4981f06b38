import { execFileSync } from 'node:child_process';
import { release } from 'node:os';
import { createLog } from '../../src/lib/log.ts';
import { createLocalRunner } from '../../src/runners/local.ts';
import { describeOn, noteServerMet } from '../support/hosts.ts';
import { describeRunnerContract } from './contract.ts';
import { findLeftovers, localTarget } from './local/leftovers.ts';

describeOn('local', 'the local runner', () => {
  noteServerMet('local', `${bwrapVersion()} on Linux ${release()}`);

  describeRunnerContract({
    createRunner: () =>
      createLocalRunner({ enabled: true, hiddenPaths: [process.cwd()], log: createLog('silent') }),
    target: localTarget,
    look: findLeftovers,
    capabilities: {
      languages: ['python', 'javascript', 'bash'],
      enforces: { memoryBytes: true, cpus: true, pids: true, none: true, any: false },
      tellsSignals: false,
    },
    missing: { language: 'javascript', env: { PATH: '/nowhere' } },
  });
});

function bwrapVersion(): string {
  return execFileSync('bwrap', ['--version'], { encoding: 'utf8' }).trim();
}
