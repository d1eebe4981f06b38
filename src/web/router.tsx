import { createRootRoute, createRoute, createRouter, Navigate } from '@tanstack/react-router';
import { z } from 'zod';
import { ErrorPage } from './components/error-state.tsx';
import { Loading } from './components/loading.tsx';
import { lazyRouteComponent } from './lazy-page.tsx';
import { NAVIGATION } from './shell/navigation.ts';
import { NotFound } from './shell/not-found.tsx';
import { Root } from './shell/root.tsx';

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
    path: '/keys',
    validateSearch: z.object({ provider: z.string().optional().catch(undefined) }),
    component: lazyRouteComponent(() => import('./pages/keys/index.tsx'), 'KeysPage'),
  }),
  createRoute({
    getParentRoute: () => rootRoute,
    path: '/',
    // Not a redirect before loading: visitors without a session see the landing at this address.
    component: () => <Navigate to={NAVIGATION[0].to} replace />,
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
