import { makeOperator } from '../../test/support/operator.ts';
import { readRunEvents } from '../../test/support/run-events.ts';
import type { LoadAttack } from './attack.ts';

const RUNS = 8;
const LOOPS = 200;
const COMMAND = `n=0; while [ $n -lt ${LOOPS} ]; do (while :; do :; done) & n=$((n + 1)); done; echo begun; wait`;

export const busyLocalRuns: LoadAttack = {
  name: `${RUNS} local runs with ${LOOPS} busy loops each`,
  env: { LOCAL_EXECUTION: 'true', RUNS_PER_USER: String(RUNS), RUNS_PER_SERVER: String(RUNS) },
  async prepare(app, attacker) {
    await makeOperator(attacker.user.id);
    const { id } = await attacker.add({ name: 'Here', server_type: 'local', connection_config: {} });

    async function startRun() {
      const begun = Promise.withResolvers<string>();
      const response = await attacker.send('POST', `/${id}/run`, { command: COMMAND, timeout_ms: 600_000 });
      const ended = (async () => {
        for await (const { event, data } of readRunEvents(response)) {
          if (event === 'output') begun.resolve(data.run_id);
          if (event === 'exit') begun.reject(new Error(`a run ended: ${JSON.stringify(data)}`));
        }
      })();
      return { runId: await begun.promise, ended };
    }

    return {
      async begin() {
        const runs = await Promise.all(Array.from({ length: RUNS }, startRun));
        return async () => {
          for (const { runId } of runs)
            await app.call(`/api/v1/runs/${runId}`, { method: 'DELETE', session: attacker.session });
          await Promise.all(runs.map(({ ended }) => ended));
        };
      },
    };
  },
};
