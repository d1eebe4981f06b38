import { startApp, type TestApp } from './app.ts';
import { startUpstream, type Upstream } from './upstream.ts';

export interface Gateway {
  app: TestApp;
  /** The upstream of OpenAI keys. */
  openai: Upstream;
  /** The upstream of the system default. */
  system: Upstream;
  /** Call after each test. */
  reset(): void;
  stop(): Promise<void>;
}

/** Starts the app with a double for OpenAI and one for the system default. */
export async function startGateway(
  env: (doubles: Pick<Gateway, 'openai' | 'system'>) => Record<string, string>,
): Promise<Gateway> {
  const [openai, system] = [await startUpstream(), await startUpstream()];
  const app = await startApp({
    env: {
      UPSTREAM_OPENAI_URL: openai.url,
      DEFAULT_LLM_BASE_URL: system.url,
      ...env({ openai, system }),
    },
  });
  return {
    ...{ app, openai, system },
    reset() {
      openai.reset();
      system.reset();
    },
    async stop() {
      await app.stop();
      await openai.stop();
      await system.stop();
    },
  };
}
