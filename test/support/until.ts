import { setTimeout as delay } from 'node:timers/promises';

const POLL_MS = 50;
const GIVE_UP_MS = 15_000;

/**
 * Polls a value until it is accepted, for changes without an event that a test could await.
 * @param withinMs time limit.
 * @returns the accepted value.
 * @throws Error with the last value after `withinMs`.
 */
export async function until<T>(
  read: () => Promise<T> | T,
  isDone: (value: T) => boolean = Boolean,
  withinMs = GIVE_UP_MS,
): Promise<T> {
  const deadlineMs = performance.now() + withinMs;
  for (;;) {
    const value = await read();
    if (isDone(value)) return value;
    if (performance.now() > deadlineMs)
      throw new Error(`not within ${withinMs} ms; last: ${JSON.stringify(value)}`);
    await delay(POLL_MS);
  }
}
