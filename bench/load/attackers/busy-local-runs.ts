import { readRunEvents } from '../../../test/support/run-events.ts';
import type { BeginAttack } from '../attacker.ts';
import { send, type AttackingUser } from './user.ts';

export const RUNS = 8;
export const LOOPS = 200;
const COMMAND = `n=0; while [ $n -lt ${LOOPS} ]; do (while :; do :; done) & n=$((n + 1)); done; echo begun; wait`;

export const begin: BeginAttack<AttackingUser & { server: string }> = async ({ server, ...user }) => {
  async function startRun() {
    const begun = Promise.withResolvers<string>();
    const body = JSON.stringify({ command: COMMAND, timeout_ms: 600_000 });
    const response = await send(user, 'POST', `/api/v1/execution-servers/${server}/run`, body);
    const ended = (async () => {
      for await (const { event, data } of readRunEvents(response)) {
        if (event === 'output') begun.resolve(data.run_id);
        if (event === 'exit') begun.reject(new Error(`a run ended: ${JSON.stringify(data)}`));
      }
    })();
    return { runId: await begun.promise, ended };
  }

  const runs = await Promise.all(Array.from({ length: RUNS }, startRun));
  return async () => {
    for (const { runId } of runs) await (await send(user, 'DELETE', `/api/v1/runs/${runId}`)).text();
    await Promise.all(runs.map(({ ended }) => ended));
    return `${runs.length} runs`;
  };
};
