/** One thing that the app cannot work without; `check` throws when it is not there. */
export interface Dependency {
  name: 'database' | 'migrations' | 'keycloak';
  check: () => Promise<void>;
}

export interface Readiness {
  ready: boolean;
  /** Dependency -> `ok` or `failed`. Shown on the metrics port only. */
  details: Record<string, 'ok' | 'failed'>;
}

/** Probes come from several sides, often; what they ask is asked at most once in this time. */
const FRESH_MS = 1_000;
const DEADLINE_MS = 3_000;

/** Builds the readiness question: all dependencies at once, each given 3 s, shared by all who ask at the time. */
export function createReadiness(
  dependencies: readonly Dependency[],
  isDraining: () => boolean,
): () => Promise<Readiness> {
  let last: { startedAtMs: number; answer: Promise<Readiness> } | undefined;
  async function ask(): Promise<Readiness> {
    const results = await Promise.all(
      dependencies.map(async ({ name, check }) => [name, await verdict(check)] as const),
    );
    return { ready: results.every(([, result]) => result === 'ok'), details: Object.fromEntries(results) };
  }
  return async () => {
    const now = performance.now();
    if (last === undefined || now - last.startedAtMs > FRESH_MS) last = { startedAtMs: now, answer: ask() };
    const readiness = await last.answer;
    // A process that is about to stop must get no more traffic, whatever its dependencies say.
    return isDraining() ? { ...readiness, ready: false } : readiness;
  };
}

async function verdict(check: () => Promise<void>): Promise<'ok' | 'failed'> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  const expired = new Promise<never>((_resolve, reject) => {
    deadline.addEventListener(
      'abort',
      () => {
        reject(new Error('too slow'));
      },
      { once: true },
    );
  });
  try {
    await Promise.race([check(), expired]);
    return 'ok';
  } catch {
    return 'failed';
  }
}
