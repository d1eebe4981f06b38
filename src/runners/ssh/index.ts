import type { ClientChannel } from 'ssh2';
import { sshConfig, type SshConfig } from '../../lib/ssh/config.ts';
import { correctSshInput, findHostProblem } from '../../lib/ssh/input-correction.ts';
import { findPrivateKeyInputProblem } from '../../lib/ssh/private-key.ts';
import type { SshConnections } from '../../lib/ssh/connections.ts';
import type { OptionalLimit, Runner, TargetServer } from '../runner.ts';
import { runWithSetup } from '../setup.ts';
import { cleanUpSshRun } from './cleanup.ts';
import { createMissingProgramMessage } from './exit.ts';
import { runSshJob } from './run.ts';
import { testSshServer } from './staged-test.ts';

/** Runs jobs on a machine with an SSH server, as the account that the user configured. */
export function createSshRunner(deps: { connections: SshConnections }): Runner<SshConfig> {
  const { connections } = deps;
  const startOn =
    (target: TargetServer) =>
    (command: string, signal: AbortSignal): Promise<ClientChannel> =>
      connections.exec(target, command, signal);
  const cleanUp = (target: TargetServer, runId: string) => cleanUpSshRun(startOn(target), runId);

  return {
    type: 'ssh',
    config: sshConfig,
    correctInput: correctSshInput,
    findInputProblems({ host, private_key: key }) {
      const hostProblem = findHostProblem(host);
      const keyProblem = key === null ? undefined : findPrivateKeyInputProblem(key);
      return {
        ...(hostProblem !== undefined && { host: hostProblem }),
        ...(keyProblem !== undefined && { private_key: keyProblem }),
      };
    },
    secretFields: ['password', 'private_key', 'passphrase', 'environment', 'setup'],
    // Binds the password or key to the account that it was entered for, and environment and set-up also to the programs
    // that receive what they set.
    destination: ({ host, port, username, jump, interpreters, environment, setup }, hostKey) => ({
      ...{ type: 'ssh', host, port, username, jump, hostKey },
      ...((environment !== null || setup !== null) && interpreters !== null && { interpreters }),
    }),
    jumpServerIds: ({ jump }) => (jump === null ? [] : [jump]),
    needsHostKey: true,
    // Only the machine's administrator can limit what an account may use.
    unenforceableLimits: (_config, limits) => UNENFORCEABLE.filter((limit) => isRequested(limits[limit])),
    test: (target, signal) => testSshServer(connections, target, signal),
    run: (target, job, _limits, signal) =>
      runWithSetup(
        target.config.setup,
        createMissingProgramMessage(target.config.interpreters, job.program),
        (setup) => {
          const deps = { start: startOn(target), cleanUp: (runId: string) => cleanUp(target, runId) };
          return runSshJob(deps, { ...target, setup }, job, signal);
        },
      ),
    async cleanUp(target, runId) {
      await cleanUp(target, runId);
      return 'unverified';
    },
    release(serverId) {
      connections.release(serverId);
      return Promise.resolve();
    },
    releaseOwner(owner) {
      connections.releaseOwner(owner);
      return Promise.resolve();
    },
    listOwners: () => connections.listOwners(),
    close: () => connections.close(),
  };
}

const UNENFORCEABLE: readonly OptionalLimit[] = ['memoryBytes', 'cpus', 'pids', 'network'];

function isRequested(limit: number | string | null): boolean {
  return limit !== null && limit !== 'any';
}
