import type { Dialer } from '../lib/net/dialer.ts';
import type { Log } from '../lib/log.ts';
import { createSshConnections } from '../lib/ssh/connections.ts';
import { createDockerRunner } from './docker/index.ts';
import { createKubernetesRunner } from './kubernetes/index.ts';
import { createLocalRunner, type LocalRunnerOptions } from './local/index.ts';
import type { Runner, ServerType } from './runner.ts';
import { createSshRunner } from './ssh/index.ts';
import { supervise } from './supervise.ts';

export interface RunnersDeps {
  dialer: Dialer;
  log: Log;
  /** Set if the operator allows local execution. */
  local?: Pick<LocalRunnerOptions, 'hiddenPaths' | 'ceilings'> | undefined;
}

const LOCAL_DISABLED = { hiddenPaths: [], ceilings: { memoryBytes: null, cpus: null, pids: null } };

/** All runners in display order, each supervised. */
export function createRunners({ dialer, log, local }: RunnersDeps): ReadonlyMap<ServerType, Runner> {
  const ssh = createSshConnections({ dialer });
  const runners: readonly Runner[] = [
    createSshRunner({ connections: ssh }),
    createDockerRunner({ dialer, ssh, log }),
    createKubernetesRunner({ dialer }),
    createLocalRunner({ enabled: local !== undefined, ...(local ?? LOCAL_DISABLED), log }),
  ];
  return new Map(runners.map((runner) => [runner.type, supervise(runner, { log })]));
}
