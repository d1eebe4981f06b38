import { setImmediate as nextEventLoopTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Bytes that are still reachable in this process, including buffers. */
export async function measureRetainedBytes(): Promise<number> {
  // Values on the stack of the current synchronous work are released first. The memory of a buffer is released some time
  // after the collection that found it unreachable, so there are two.
  for (let round = 0; round < 2; round += 1) {
    await nextEventLoopTurn();
    collectGarbage();
  }
  await nextEventLoopTurn();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
