import { randomInt } from 'node:crypto';

export interface Rotation {
  /** The turn that the next request will get. */
  peek(pool: string): number;
  /** Ends the current turn; called once for each request that used the pool. */
  advance(pool: string): void;
}

/** How many pools are remembered; the longest unused starts anew at random, which harms nothing. */
const REMEMBERED_POOLS = 10_000;

/** Counts turns per pool in this process, each pool starting at random so that several instances spread evenly. */
export function createRotation(): Rotation {
  const turns = new Map<string, number>();
  function peek(pool: string): number {
    const turn = turns.get(pool) ?? randomInt(1_000_000);
    turns.delete(pool);
    turns.set(pool, turn);
    const oldest = turns.keys().next();
    if (turns.size > REMEMBERED_POOLS && !oldest.done) turns.delete(oldest.value);
    return turn;
  }
  return {
    peek,
    advance: (pool) => {
      turns.set(pool, peek(pool) + 1);
    },
  };
}
