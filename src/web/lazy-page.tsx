import { startTransition, use, useState, type ReactNode } from 'react';
import { ApiError, OutdatedPageError } from './api/problem.ts';
import { getAppState } from './app-state.ts';
import { ErrorPage } from './components/error-state.tsx';
import { checkBuild } from './shell/build-check.ts';

type PageComponent = () => ReactNode;

/**
 * A page whose code is loaded when it is opened. In contrast to the router's function of this name it never reloads the
 * document, which would show the browser's own error page while the device is offline.
 */
export function lazyRouteComponent<Name extends string>(
  load: () => Promise<Record<Name, PageComponent>>,
  name: Name,
): PageComponent & { preload: () => Promise<void> } {
  let outcome: Promise<PageComponent | Error> | undefined;
  const read = () => (outcome ??= load().then((module) => module[name], toLoadError));
  function LazyPage(): ReactNode {
    const [, setAttempts] = useState(0);
    const Page = use(read());
    if (!(Page instanceof Error)) return <Page />;
    const retry = () => {
      outcome = undefined;
      // The error stays until the next attempt has ended.
      startTransition(() => setAttempts((attempts) => attempts + 1));
    };
    return <ErrorPage error={Page} onRetry={retry} />;
  }
  // The router calls it when a link is hovered, and before it shows the page.
  return Object.assign(LazyPage, { preload: async () => void (await read()) });
}

async function toLoadError(reason: unknown): Promise<Error> {
  const isReachable = await checkBuild();
  if (!isReachable) return new ApiError(0, undefined);
  if (getAppState().isOutdated) return new OutdatedPageError();
  return reason instanceof Error ? reason : new Error(String(reason));
}
