import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI, { APIError } from 'openai';
import { startApp, type TestApp } from '../support/app.ts';
import { startDemoUpstream, type DemoUpstream } from '../../src/dev/demo-upstream/server.ts';
import { addKey } from '../support/key.ts';
import { apiTokens, createApiClient } from '../support/keycloak-tokens.ts';
import { createUser } from '../support/stack.ts';

/** The value that a program gets of a call, or the error of its SDK. */
type Outcome = { value: unknown } | { status: number | null; code: string | null };

interface Sdk {
  call(name: 'embeddings' | 'models' | 'model', argument: object): Promise<Outcome>;
  close(): Promise<void>;
}

let demo: DemoUpstream;
let app: TestApp;
let accessToken: string;

beforeAll(async () => {
  demo = await startDemoUpstream();
  const clientId = await createApiClient();
  app = await startApp({ env: { API_CLIENT_IDS: clientId, UPSTREAM_DEMO_URL: demo.url } });
  const user = await createUser({ tier: 'starter' });
  await addKey(app, await app.signIn(user), { provider: 'demo', key: 'demo-of-the-embeddings-tests' });
  accessToken = (await apiTokens(clientId, user)).access_token;
});
afterAll(async () => {
  await app.stop();
  await demo.stop();
});

function createNodeSdk(): Sdk {
  const client = new OpenAI({ baseURL: `${app.url}/v1`, apiKey: accessToken, maxRetries: 0 });
  const calls = {
    async embeddings(argument: object) {
      const { data } = await client.embeddings.create(argument as OpenAI.EmbeddingCreateParams);
      return data.map(({ embedding }) => embedding);
    },
    models: async () => (await client.models.list()).data.map(({ id }) => id),
    model: async (argument: object) => (await client.models.retrieve((argument as { id: string }).id)).id,
  };
  return {
    async call(name, argument) {
      try {
        return { value: await calls[name](argument) };
      } catch (error) {
        if (!(error instanceof APIError)) throw error;
        return { status: (error.status as number | undefined) ?? null, code: error.code ?? null };
      }
    },
    close: () => Promise.resolve(),
  };
}

function createPythonSdk(python: string): Sdk {
  const script = new URL('../support/openai-embeddings-client.py', import.meta.url).pathname;
  const child = spawn(python, [script, `${app.url}/v1`, accessToken], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async call(name, argument) {
      child.stdin.write(`${JSON.stringify({ name, argument })}\n`);
      const line = await lines.next();
      if (line.done === true) throw new Error('the Python process has ended');
      return JSON.parse(line.value) as Outcome;
    },
    async close() {
      const exited = once(child, 'exit');
      child.stdin.end();
      await exited;
    },
  };
}

const python = process.env['OPS_TEST_PYTHON'];
const isPythonRequired = process.env['CI'] === 'true';
const SDKS: [string, () => Sdk][] = [['Node', createNodeSdk]];
if (python !== undefined || isPythonRequired) SDKS.push(['Python', () => createPythonSdk(String(python))]);
else process.stderr.write('Skipped: the Python SDK of OpenAI. Set OPS_TEST_PYTHON to run it.\n');

const request = { model: 'demo/demo-embeddings', input: ['a red house', 'a red car'], dimensions: 64 };

describe.each(SDKS)('the official SDK for %s', (_name, createSdk) => {
  let sdk: Sdk;
  beforeAll(() => {
    sdk = createSdk();
  });
  afterAll(() => sdk.close());

  it('reads the same vectors as numbers and in base64, which it asks for by default', async () => {
    const floats = await sdk.call('embeddings', { ...request, encoding_format: 'float' });
    const byDefault = await sdk.call('embeddings', request);
    const toVectors = (outcome: Outcome) => ('value' in outcome ? (outcome.value as number[][]) : []);
    expect(toVectors(floats).map(({ length }) => length)).toEqual([64, 64]);
    expect(toVectors(byDefault).map((vector) => vector.map((number) => number.toFixed(5)))).toEqual(
      toVectors(floats).map((vector) => vector.map((number) => number.toFixed(5))),
    );
  });

  it('reads the provider’s error', async () => {
    expect(await sdk.call('embeddings', { ...request, dimensions: 0 })).toEqual({
      status: 400,
      code: 'invalid_value',
    });
  });

  it('lists models, and retrieves each by its id', async () => {
    const ids = ['demo/demo', 'demo/demo-tools', 'demo/demo-embeddings'];
    expect(await sdk.call('models', {})).toEqual({ value: ids });
    for (const id of ids) expect(await sdk.call('model', { id })).toEqual({ value: id });
    expect(await sdk.call('model', { id: 'demo/demo-embedings' })).toEqual({
      status: 404,
      code: 'model_not_found',
    });
  });
});
