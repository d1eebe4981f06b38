import { it } from '@jest/globals';
import { CANCEL_PHASES, cancelInPhase } from '../test/support/cancel-phases.ts';
import { printTimes } from './table.ts';

const ROUNDS = 100;

/** Goal: at most 50 ms, worst of 100, on an idle machine. */
it.each(CANCEL_PHASES)(
  'measures how soon the upstream connection of a cancelled request is closed, %s',
  async (name, prepare) => {
    const phase = await prepare();
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) times.push(await cancelInPhase(phase));
    printTimes('request cancelled -> connection closed', { [name]: times });
  },
);
