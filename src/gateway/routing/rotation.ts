import { randomInt } from 'node:crypto';

/** Round robin over the keys of a pool: where the next request starts. After a 401, `serve-from-pool.ts` tries the next key. */
export interface Rotation {
  /** The index that the next request will use. */
  peek(poolId: string): number;
  /** Moves to the next index. Called once for each request that used the pool. */
  advance(poolId: string): void;
}

/** When exceeded, the least recently used pool is dropped and later restarts at a random index. */
const MAX_POOLS = 10_000;

/** Keeps a rotation index per pool in this process. Each starts at random, so that several instances spread evenly. */
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
