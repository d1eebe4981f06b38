import { randomInt } from 'node:crypto';
import { choosePort } from '../../src/dev/quickstart/ports.ts';

/**
 * Below the ports that systems give to connections (from 32768 on Linux) and those of `test/hosts` (from 20000), and above
 * 10080, which `fetch` refuses ("bad port").
 */
const [FIRST, END] = [10_081, 20_000];
const MAX_PICKS = 50;
/** By this process, in this test file. */
const returned = new Set<number>();

/**
 * A free port on loopback for a server whose address must be known before it listens. The system could give a port of
 * its own range to another connection meanwhile.
 */
export async function freePort(): Promise<number> {
  for (let picks = 0; picks < MAX_PICKS; picks += 1) {
    const pick = randomInt(FIRST, END);
    if (returned.has(pick)) continue;
    returned.add(pick);
    const port = await choosePort(pick, 'PORT').catch(() => undefined);
    if (port !== undefined) return port;
  }
  throw new Error(`no port between ${FIRST} and ${END} was found free`);
}
