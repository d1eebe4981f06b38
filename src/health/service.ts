import type { Route } from '../http/route.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { createReadinessCheck, type Dependency, type Readiness } from './readiness.ts';
import { healthRoutes } from './routes.ts';

/** What load balancers and operators see of this process. */
export interface Health {
  metrics: Metrics;
  /** Shared by concurrent callers. */
  readiness: () => Promise<Readiness>;
  routes: Route[];
}

export function createHealth(dependencies: readonly Dependency[], isDraining: () => boolean): Health {
  const readiness = createReadinessCheck(dependencies, isDraining);
  return { metrics: createMetrics(), readiness, routes: healthRoutes(readiness) };
}
