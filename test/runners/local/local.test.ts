import { execFileSync } from 'node:child_process';
import { release } from 'node:os';
import { createLog } from '../../../src/lib/log.ts';
import { createLocalRunner } from '../../../src/runners/local/index.ts';
import { describeOn, recordServerUsed } from '../../support/hosts.ts';
import { describeRunnerContract } from '../contract.ts';
import { listLeaks, localTarget } from './leaks.ts';
import { NO_CEILINGS } from './running.ts';

describeOn('local', 'the local runner', () => {
  recordServerUsed('local', `${bwrapVersion()} on Linux ${release()}`);

  describeRunnerContract({
    createRunner: () =>
      createLocalRunner({
        enabled: true,
        hiddenPaths: [process.cwd()],
        ceilings: NO_CEILINGS,
        log: createLog('silent'),
      }),
    target: localTarget,
    listLeaks: listLeaks,
    capabilities: {
      languages: ['python', 'javascript', 'bash'],
      enforces: { memoryBytes: true, cpus: true, pids: true, none: true, any: false },
      reportsSignals: false,
    },
    missingInterpreter: { language: 'javascript', env: { PATH: '/nowhere' } },
  });
});

function bwrapVersion(): string {
  return execFileSync('bwrap', ['--version'], { encoding: 'utf8' }).trim();
}
