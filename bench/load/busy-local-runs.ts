import { makeOperator } from '../../test/support/operator.ts';
import type { LoadAttack } from './attack.ts';
import { LOOPS, RUNS } from './attackers/busy-local-runs.ts';

export const busyLocalRuns: LoadAttack = {
  name: `${RUNS} local runs with ${LOOPS} busy loops each`,
  env: { LOCAL_EXECUTION: 'true', RUNS_PER_USER: String(RUNS), RUNS_PER_SERVER: String(RUNS) },
  async prepare({ url }, attacker) {
    await makeOperator(attacker.user.id);
    const { id } = await attacker.add({ name: 'Here', server_type: 'local', connection_config: {} });
    const settings = { url, session: attacker.session, server: id };
    return { load: { attacker: 'busy-local-runs', settings } };
  },
};
