import { rawRoute, type Route } from '../http/route.ts';
import type { Readiness } from './readiness.ts';

/** The public probes: `/livez` reports that the process runs, `/readyz` that its dependencies are available. */
export function healthRoutes(readiness: () => Promise<Readiness>): Route[] {
  return [
    rawRoute({
      method: 'get',
      path: '/livez',
      access: 'public',
      handle: (_call, _request, response) => {
        response.json({ status: 'alive' });
      },
    }),
    rawRoute({
      method: 'get',
      path: '/readyz',
      access: 'public',
      async handle(_call, _request, response) {
        const { ready } = await readiness();
        response.status(ready ? 200 : 503).json({ status: ready ? 'ready' : 'not_ready' });
      },
    }),
  ];
}
