import { randomInt } from 'node:crypto';

export interface Rotation {
  /** The turn that the next request will get. */
  peek(poolId: string): number;
  /** Ends the current turn; called once for each request that used the pool. */
  advance(poolId: string): void;
}

/** How many pools are remembered; the longest unused starts anew at random, which harms nothing. */
const MAX_POOLS = 10_000;

/** Counts turns per pool in this process, each pool starting at random so that several instances spread evenly. */
export function createRotation(): Rotation {
  const indexes = new Map<string, number>();
  function peek(poolId: string): number {
    const index = indexes.get(poolId) ?? randomInt(1_000_000);
    indexes.delete(poolId);
    indexes.set(poolId, index);
    const oldest = indexes.keys().next();
    if (indexes.size > MAX_POOLS && !oldest.done) indexes.delete(oldest.value);
    return index;
  }
  return {
    peek,
    advance: (poolId) => {
      indexes.set(poolId, peek(poolId) + 1);
    },
  };
}
