/** Lets a number of pieces of work through at once, the others in the order in which they came. */
export interface Turnstile {
  /** @param deadlineMs epoch ms: whose turn has not come by then is refused. */
  pass<T>(deadlineMs: number, work: () => Promise<T>): Promise<T>;
}

/** A turnstile for one piece of work at a time under each name; names that nobody uses cost nothing. */
export interface Turns {
  /** @param deadlineMs as of {@link Turnstile}. */
  take<T>(name: string, deadlineMs: number, work: () => Promise<T>): Promise<T>;
}

/** @param late makes what is thrown when a turn does not come in time. */
export function createTurnstile(places: number, late: () => Error): Turnstile {
  let free = places;
  const waiting: (() => void)[] = [];

  function enter(deadlineMs: number): Promise<void> {
    if (free > 0) {
      free -= 1;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.splice(waiting.indexOf(admit), 1);
        reject(late());
      }, deadlineMs - Date.now());
      const admit = () => {
        clearTimeout(timer);
        resolve();
      };
      waiting.push(admit);
    });
  }

  function leave(): void {
    const next = waiting.shift();
    if (next === undefined) free += 1;
    else next();
  }

  return {
    async pass(deadlineMs, work) {
      await enter(deadlineMs);
      try {
        return await work();
      } finally {
        leave();
      }
    },
  };
}

/** @param late as of {@link createTurnstile}. */
export function createTurns(late: () => Error): Turns {
  const queues = new Map<string, { turnstile: Turnstile; users: number }>();
  return {
    async take(name, deadlineMs, work) {
      const queue = queues.get(name) ?? { turnstile: createTurnstile(1, late), users: 0 };
      queues.set(name, queue);
      queue.users += 1;
      try {
        return await queue.turnstile.pass(deadlineMs, work);
      } finally {
        queue.users -= 1;
        if (queue.users === 0) queues.delete(name);
      }
    },
  };
}
