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
const CACHE_TTL_MS = 1_000;
const CHECK_TIMEOUT_MS = 3_000;

/** Builds the readiness question: all dependencies at once, each given 3 s, shared by all who ask at the time. */
export function createReadinessCheck(
  dependencies: readonly Dependency[],
  isDraining: () => boolean,
): () => Promise<Readiness> {
  let last: { startedAtMs: number; result: Promise<Readiness> } | undefined;
  async function checkAll(): Promise<Readiness> {
    const results = await Promise.all(
      dependencies.map(async ({ name, check }) => [name, await runCheck(check)] as const),
    );
    return { ready: results.every(([, result]) => result === 'ok'), details: Object.fromEntries(results) };
  }
  return async () => {
    const now = performance.now();
    if (last === undefined || now - last.startedAtMs > CACHE_TTL_MS)
      last = { startedAtMs: now, result: checkAll() };
    const readiness = await last.result;
    // A process that is about to stop must get no more traffic, whatever its dependencies say.
    return isDraining() ? { ...readiness, ready: false } : readiness;
  };
}

async function runCheck(check: () => Promise<void>): Promise<'ok' | 'failed'> {
  const deadline = AbortSignal.timeout(CHECK_TIMEOUT_MS);
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
