import { setTimeout as rest } from 'node:timers/promises';

const POLL_MS = 50;
const GIVE_UP_MS = 15_000;

/** Repeats a question until the answer will do, for what sends no event that a test could await; answers the last one. */
export async function until<T>(ask: () => Promise<T> | T, willDo: (answer: T) => boolean): Promise<T> {
  const deadlineMs = performance.now() + GIVE_UP_MS;
  for (;;) {
    const answer = await ask();
    if (willDo(answer)) return answer;
    if (performance.now() > deadlineMs)
      throw new Error(`not within ${GIVE_UP_MS} ms; last: ${JSON.stringify(answer)}`);
    await rest(POLL_MS);
  }
}
