import { createRequire, registerHooks } from 'node:module';
import { pathToFileURL } from 'node:url';
import { setTestGlobals } from './globals-of-file.ts';

/** What jest passes to a test runner, as far as it is used here. */
type RunnerParameters = [
  globalConfig: unknown,
  config: unknown,
  environment: unknown,
  runtime: object,
  ...rest: unknown[],
];
type Runner = (...parameters: RunnerParameters) => Promise<unknown>;

/** Each test file has its own copies of these modules: they declare hooks, and keep what a file started. */
const COPIED = ['test/', 'bench/'].map((folder) => new URL(`../../../${folder}`, import.meta.url).href);
const SHARED = new URL('./', import.meta.url).href;
const GLOBALS = new URL('./globals.ts', import.meta.url).href;
/** The symbols of the globals that keep the tests of a file, their results and their time limit. */
const FRAMEWORK_STATE = new Set(['JEST_STATE_SYMBOL', 'EVENT_HANDLERS', 'TEST_TIMEOUT_SYMBOL']);
/** The query of the modules of one test file. */
const QUERY = /\?test-file=\d+$/;

const require = createRequire(import.meta.url);
const { default: runWithCircus } = require('jest-circus/runner') as { default: Runner };
let count = 0;

registerHooks({
  resolve(specifier, context, nextResolve) {
    const query = QUERY.exec(context.parentURL ?? '')?.[0];
    if (query === undefined) return nextResolve(specifier, context);
    if (specifier === '@jest/globals') return { url: GLOBALS + query, shortCircuit: true };
    const found = nextResolve(specifier, context);
    const isCopied = COPIED.some((folder) => found.url.startsWith(folder)) && !found.url.startsWith(SHARED);
    return isCopied ? { ...found, url: found.url + query } : found;
  },
});

/**
 * Runs one test file with jest's own test framework, as modules of Node instead of modules of a `node:vm` context: so the
 * product and its packages are loaded once in a process, not once for each test file. They keep no state in modules that a
 * test could see.
 */
export default async function runTestFile(...parameters: RunnerParameters): Promise<unknown> {
  count += 1;
  const query = `?test-file=${count}`;
  Object.assign(parameters[3], {
    // The framework keeps the tests of a file in this module.
    requireInternalModule: (file: string) => {
      Reflect.deleteProperty(require.cache, file);
      return require(file) as unknown;
    },
    setGlobalsForRuntime: setTestGlobals,
    unstable_shouldLoadAsEsm: () => true,
    unstable_importModule: (file: string) => import(pathToFileURL(file).href + query),
  });
  try {
    return await runWithCircus(...parameters);
  } finally {
    for (const symbol of Object.getOwnPropertySymbols(globalThis))
      if (FRAMEWORK_STATE.has(symbol.description ?? '')) Reflect.deleteProperty(globalThis, symbol);
  }
}
