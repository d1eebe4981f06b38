import { rejectOnAbort } from '../lib/async/reject-on-abort.ts';

/** A dependency that the app requires; `check` throws when it is not available. */
export interface Dependency {
  name: 'database' | 'migrations' | 'keycloak';
  check: () => Promise<void>;
}

export interface Readiness {
  ready: boolean;
  /** Result by dependency. Shown on the metrics port only. */
  details: Record<string, 'ok' | 'failed'>;
}

/** Several clients probe often, so the dependencies are checked at most once in this time. */
const CACHE_TTL_MS = 1_000;
const CHECK_TIMEOUT_MS = 3_000;

/** Checks all dependencies in parallel with a timeout of 3 s each. Concurrent callers share one check. */
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
    // A process that is about to stop must receive no more traffic.
    return isDraining() ? { ...readiness, ready: false } : readiness;
  };
}

async function runCheck(check: () => Promise<void>): Promise<'ok' | 'failed'> {
  try {
    await rejectOnAbort(check(), AbortSignal.timeout(CHECK_TIMEOUT_MS));
    return 'ok';
  } catch {
    return 'failed';
  }
}
