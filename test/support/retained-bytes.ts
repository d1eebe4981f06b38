import { setImmediate as nextEventLoopTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Bytes that are still reachable in this process, including buffers. */
export async function measureRetainedBytes(): Promise<number> {
  // Values on the stack of the current synchronous work are released first.
  await nextEventLoopTurn();
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
