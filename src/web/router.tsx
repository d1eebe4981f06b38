import { createRootRoute, createRoute, createRouter, stripSearchParams } from '@tanstack/react-router';
import { z } from 'zod';
import { ErrorPage } from './components/error-state.tsx';
import { Loading } from './components/loading.tsx';
import { lazyRouteComponent } from './lazy-page.tsx';
import { NotFound } from './shell/not-found.tsx';
import { Root } from './shell/root.tsx';
import { Start } from './shell/start.tsx';

/*
 * Every page of the product. Its code is loaded when it is opened. A new page also gets a line in
 * shell/navigation.ts, if it has an entry there, and in src/page/page-paths.ts, so that the server knows its address.
 */
const rootRoute = createRootRoute({
  component: Root,
  notFoundComponent: NotFound,
});

const pages = [
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/welcome',
    component: lazyRouteComponent(() => import('./pages/welcome/index.tsx'), 'WelcomePage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/keys',
    validateSearch: z.object({ provider: z.string().optional().catch(undefined) }),
    component: lazyRouteComponent(() => import('./pages/keys/index.tsx'), 'KeysPage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/',
    // Not a redirect before loading: visitors without a session see the landing at this address.
    component: Start,
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/servers',
    component: lazyRouteComponent(() => import('./pages/servers/index.tsx'), 'ServersPage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/servers/new',
    component: lazyRouteComponent(() => import('./pages/servers/new-server.tsx'), 'NewServerPage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/servers/$id',
    // A server that was just added is tested at once.
    validateSearch: z.object({ test: z.boolean().catch(false).default(false) }),
    search: { middlewares: [stripSearchParams({ test: false })] },
    component: lazyRouteComponent(() => import('./pages/servers/server.tsx'), 'ServerPage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/runs',
    validateSearch: z.object({
      server_id: z.string().catch('').default(''),
      status: z.enum(['', 'queued', 'running', 'finished']).catch('').default(''),
      language: z.enum(['', 'python', 'javascript', 'bash']).catch('').default(''),
    }),
    search: { middlewares: [stripSearchParams({ server_id: '', status: '', language: '' })] },
    component: lazyRouteComponent(() => import('./pages/runs/index.tsx'), 'RunsPage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/runs/new',
    validateSearch: z.object({
      again: z.string().catch('').default(''),
      server_id: z.string().catch('').default(''),
    }),
    search: { middlewares: [stripSearchParams({ again: '', server_id: '' })] },
    component: lazyRouteComponent(() => import('./pages/runs/new-run.tsx'), 'NewRunPage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/runs/$id',
    component: lazyRouteComponent(() => import('./pages/runs/run.tsx'), 'RunPage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/tokens',
    component: lazyRouteComponent(() => import('./pages/tokens/index.tsx'), 'TokensPage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/audit',
    component: lazyRouteComponent(() => import('./pages/audit/index.tsx'), 'AuditPage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/settings',
    component: lazyRouteComponent(() => import('./pages/settings/index.tsx'), 'SettingsPage'),
  }),
];

export const router = createRouter({
  routeTree: rootRoute.addChildren(pages),
  defaultPreload: 'intent',
  scrollRestoration: true,
  defaultPendingComponent: Loading,
  defaultErrorComponent: ({ error, reset }) => <ErrorPage error={error} onRetry={reset} />,
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}
