import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI, { APIError } from 'openai';
import { z } from 'zod';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { createToken } from '../support/token.ts';
import { completionFrames, DONE } from '../support/upstream/frames.ts';
import { answer, fault, startUpstream, type Answer, type Upstream } from '../support/upstream.ts';

/** What a program sees of a call. */
interface Outcome {
  /** The text that arrived. */
  text: string;
  /** Of the SDK's error; missing or null when there was none, or none in the error. */
  status?: number | null | undefined;
  code?: string | null | undefined;
}

interface Sdk {
  /** Calls with the SDK's own retries on. */
  call(stream: boolean): Promise<Outcome>;
  close(): Promise<void>;
}

const FIRST_BYTE_MS = 1_500;
const SILENCE_MS = 300;

let upstream: Upstream;
let app: TestApp;
let token: string;

beforeAll(async () => {
  upstream = await startUpstream();
  app = await startApp({
    env: {
      UPSTREAM_OPENAI_URL: upstream.url,
      UPSTREAM_FIRST_BYTE_TIMEOUT_MS: String(FIRST_BYTE_MS),
      STREAM_SILENCE_MS: String(SILENCE_MS),
    },
  });
  const session = await app.signIn(await createUser({ tier: 'starter' }));
  await addKey(app, session, { provider: 'openai', key: openAiKey() });
  ({ token } = await createToken(app, session));
});
afterAll(async () => {
  await app.stop();
  await upstream.stop();
});
afterEach(() => {
  upstream.reset();
});

function createNodeSdk(): Sdk {
  const client = new OpenAI({ baseURL: `${app.url}/v1`, apiKey: token });
  const request = { model: 'gpt-4o', messages: [{ role: 'user' as const, content: 'Hello' }] };
  return {
    async call(stream) {
      let text = '';
      try {
        if (!stream) {
          const completion = await client.chat.completions.create(request);
          return { text: completion.choices[0]?.message.content ?? '' };
        }
        for await (const chunk of await client.chat.completions.create({ ...request, stream: true }))
          text += chunk.choices[0]?.delta.content ?? '';
        return { text };
      } catch (error) {
        if (!(error instanceof APIError)) throw error;
        return { text, status: error.status as number | undefined, code: error.code };
      }
    },
    close: () => Promise.resolve(),
  };
}

const PythonOutcome = z.object({
  text: z.string(),
  status: z.number().nullish(),
  code: z.string().nullish(),
});

function createPythonSdk(python: string): Sdk {
  const script = new URL('../support/openai-client.py', import.meta.url).pathname;
  const child = spawn(python, [script, `${app.url}/v1`, token], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async call(stream) {
      child.stdin.write(`${JSON.stringify({ stream })}\n`);
      const line = await lines.next();
      if (line.done === true) throw new Error('the Python process has ended');
      return PythonOutcome.parse(JSON.parse(line.value));
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
if (python === undefined && !isPythonRequired)
  process.stderr.write('Skipped: the Python SDK of OpenAI. Set OPS_TEST_PYTHON to run it.\n');
const SDKS: [string, () => Sdk][] = [
  ['Node', createNodeSdk],
  ...(python === undefined && !isPythonRequired
    ? []
    : [['Python', () => createPythonSdk(String(python))] satisfies [string, () => Sdk]]),
];

const retried = { headers: { 'retry-after-ms': '1' } };
const ALL_FRAMES = Infinity;
/** The upstream is called once, and the SDK twice more. */
const WITH_RETRIES = 3;

describe.each(SDKS)('the official SDK for %s', (_name, createSdk) => {
  let sdk: Sdk;
  beforeAll(() => {
    sdk = createSdk();
  });
  afterAll(() => sdk.close());

  it.each<[string, boolean, Answer, Partial<Outcome>, number]>([
    // Waiting for the whole answer.
    ['an answer', false, answer.completion({ text: 'Hi' }), { text: 'Hi' }, 1],
    [
      'an answer that takes too long',
      false,
      fault.silent(),
      { text: '', status: 504, code: 'upstream_timeout' },
      1,
    ],
    [
      'a reset after the request',
      false,
      fault.resetBeforeHeaders(),
      { text: '', status: 502, code: 'upstream_unreachable' },
      1,
    ],
    ['413 as a web page', false, answer.html(413), { text: '', status: 413, code: null }, 1],
    [
      '404 as text',
      false,
      answer.reply({ status: 404, body: 'nothing here', headers: { 'content-type': 'text/plain' } }),
      { text: '', status: 404, code: null },
      1,
    ],
    [
      '503 as a web page',
      false,
      answer.reply({
        ...retried,
        status: 503,
        body: '<html>',
        headers: { ...retried.headers, 'content-type': 'text/html' },
      }),
      { text: '', status: 503, code: null },
      WITH_RETRIES,
    ],
    [
      'an error without a content type',
      false,
      answer.reply({
        status: 400,
        body: '{"error":{"message":"m","code":"c"}}',
        contentType: null,
      }),
      { text: '', status: 400, code: 'c' },
      1,
    ],
    [
      'a 503 that must not be retried',
      false,
      answer.reply({
        status: 503,
        body: { error: { message: 'm', code: 'c' } },
        headers: { 'x-should-retry': 'false' },
      }),
      { text: '', status: 503, code: 'c' },
      1,
    ],
    [
      'a 400 that should be retried',
      false,
      answer.reply({
        status: 400,
        body: { error: { message: 'm', code: 'c' } },
        headers: { ...retried.headers, 'x-should-retry': 'true' },
      }),
      { text: '', status: 400, code: 'c' },
      WITH_RETRIES,
    ],
    [
      'a 429 with its delay in milliseconds',
      false,
      answer.reply({ status: 429, body: { error: { message: 'm', code: 'c' } }, headers: retried.headers }),
      { text: '', status: 429, code: 'c' },
      WITH_RETRIES,
    ],
    // Streams.
    ['a stream', true, answer.completion({ text: 'Hi' }), { text: 'Hi' }, 1],
    [
      'a stream without a content type',
      true,
      (writer) =>
        answer.steps([...completionFrames(writer.request, { text: 'Hi' }), DONE], { contentType: null })(
          writer,
        ),
      { text: 'Hi' },
      1,
    ],
    [
      'a stream that ends without finish reason and [DONE]',
      true,
      fault.endsEarly({ afterFrames: 2 }),
      { code: 'upstream_incomplete' },
      1,
    ],
    [
      'a stream that is reset',
      true,
      fault.resetInStream({ afterFrames: 2 }),
      { code: 'upstream_unreachable' },
      1,
    ],
    [
      'a stream that is reset after its finish reason',
      true,
      fault.resetInStream({ text: 'Whole', afterFrames: ALL_FRAMES }),
      { text: 'Whole' },
      1,
    ],
    [
      'a first event after a long silence',
      true,
      (writer) => writer.delay(SILENCE_MS * 2).then(() => answer.completion({ text: 'Late' })(writer)),
      { text: 'Late' },
      1,
    ],
    [
      'an error after a long silence',
      true,
      (writer) => writer.delay(SILENCE_MS * 2).then(() => answer.error(503, { code: 'overloaded' })(writer)),
      { text: '', code: 'overloaded' },
      1,
    ],
    ['no answer after a long silence', true, fault.silent(), { text: '', code: 'upstream_timeout' }, 1],
  ])('%s', async (_case, stream, upstreamAnswer, expected, calls) => {
    upstream.answerAll(upstreamAnswer);
    const outcome = await sdk.call(stream);
    const chats = upstream.requests.filter(({ path }) => path.endsWith('/chat/completions'));
    const error = { status: outcome.status ?? null, code: outcome.code ?? null };
    // No case passes with an error that it does not expect.
    expect({ ...outcome, ...error, calls: chats.length }).toMatchObject({
      ...{ status: null, code: null },
      ...expected,
      calls,
    });
  });
});
