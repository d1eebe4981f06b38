const PAUSE_MS = 100;

/**
 * Waits for a state that no event tells of, because a poll brings it about.
 * @param withinMs the stated limit; the test fails when it is passed.
 */
export async function eventually(holds: () => Promise<boolean> | boolean, withinMs = 10_000): Promise<void> {
  const endMs = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`it did not come about within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}
