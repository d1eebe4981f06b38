import { setTimeout as rest } from 'node:timers/promises';

const POLL_MS = 50;
const GIVE_UP_MS = 15_000;

/**
 * Repeats a question until the answer will do, for what sends no event that a test could await.
 * @param withinMs a stated limit; the test fails when it is passed.
 * @returns the answer that will do.
 */
export async function until<T>(
  read: () => Promise<T> | T,
  isDone: (answer: T) => boolean = Boolean,
  withinMs = GIVE_UP_MS,
): Promise<T> {
  const deadlineMs = performance.now() + withinMs;
  for (;;) {
    const answer = await read();
    if (isDone(answer)) return answer;
    if (performance.now() > deadlineMs)
      throw new Error(`not within ${withinMs} ms; last: ${JSON.stringify(answer)}`);
    await rest(POLL_MS);
  }
}
