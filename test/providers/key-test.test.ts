import { randomBytes } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createCallProvider, type KeyTestResult } from '../../src/keys/call-provider.ts';
import { createLoopGuard } from '../../src/lib/net/loop-guard.ts';
import { PROVIDERS } from '../../src/providers/index.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { evidence } from '../support/evidence.ts';
import { createTestDialer } from '../support/local-upstreams.ts';
import { answer, fault, startUpstream, type Answer, type Upstream } from '../support/upstream.ts';
import { OUTCOMES, readRecordings, toAnswer } from './recordings.ts';

let upstream: Upstream;

beforeAll(async () => {
  upstream = await startUpstream();
});
afterEach(() => {
  upstream.reset();
});
afterAll(() => upstream.stop());

function randomKey(prefix: string): string {
  const key = prefix + randomBytes(20).toString('hex');
  evidence.registerSecret('provider key', key);
  return key;
}

/** Tests a key of the provider at `url`. */
function testKey(provider: Provider, secret: string, { url = upstream.url, timeoutMs = 10_000 } = {}) {
  const callProvider = createCallProvider({
    dialer: createTestDialer(),
    loopGuard: createLoopGuard('a secret'),
    upstreams: { overrides: { [provider.id]: url } },
    timeoutMs,
  });
  const { signal } = new AbortController();
  return callProvider({ userId: 'u1', provider, secret, endpoint: null, signal });
}

/** Answers this key with `keyAnswer` and any other key with 401, including the random key that is tried first. */
function answerKey(key: string, keyAnswer: Answer): void {
  upstream.answerAll(answer.error(401));
  upstream.answerKey(key, keyAnswer);
}

const providers = PROVIDERS.map((provider) => [provider.id, provider, readRecordings(provider.id)] as const);

describe.each(providers)('a key test of %s', (_id, provider, recordings) => {
  it.each(recordings.answers.map((one) => [one.outcome, one.status, one.source, one] as const))(
    'reads the recorded answer as %s (%i, %s)',
    async (outcome, status, _source, recording) => {
      const key = randomKey(recordings.keyPrefix);
      answerKey(key, toAnswer(recording));
      const result = await testKey(provider, key);
      expect(result).toMatchObject({ status: outcome, details: { httpStatus: status } });
      expect(result.details.latencyMs).toBeGreaterThanOrEqual(0);
      expect(result.details.billed).toBe(provider.keyTest.billed && status === 200);
      // The message contains no text of the provider, which may contain anything.
      expect(result.message).not.toContain(key);
      expect(result.message).toMatch(/^[\x20-\x7e]{20,255}$/);
      for (const text of textsOf(recording.body)) expect(result.message).not.toContain(text);
    },
  );

  it('has a recorded answer for every outcome', () => {
    expect(OUTCOMES.filter((outcome) => !recordings.answers.some((one) => one.outcome === outcome))).toEqual(
      [],
    );
  });

  it('accepts keys in the format of the recorded test', () => {
    expect(randomKey(recordings.keyPrefix)).toMatch(provider.key.pattern);
  });

  it('sends exactly the documented request, with the key only where the provider expects it', async () => {
    const key = randomKey(recordings.keyPrefix);
    answerKey(key, answer.models());
    await testKey(provider, key);
    const request = upstream.requests.at(-1);
    if (request === undefined) throw new Error('no request came');
    const { method, path, headers, body } = recordings.request;
    expect(`${request.method} ${request.path}`).toBe(`${method} /v1${path}`);
    const expected = Object.entries(headers).map(([name, value]) => [name, value.replace('{key}', key)]);
    const { host: _host, connection: _connection, 'content-length': length, ...sent } = request.headers;
    expect(sent).toEqual({
      accept: 'application/json',
      'accept-encoding': 'identity',
      ...(Object.fromEntries(expected) as Record<string, string>),
    });
    expect(request.body.toString()).toBe(body === undefined ? '' : JSON.stringify(body));
    expect(length).toBe(body === undefined ? undefined : String(request.body.length));
  });

  it.each<[string, unknown]>([
    ['a scope', { error: { message: 'Missing scopes: api.model.read', code: null } }],
    [
      'a model',
      {
        error: { message: 'key not allowed to access model.', type: 'key_model_access_denied', code: '401' },
      },
    ],
    ['a project', { error: { message: 'x', code: 'not_authorized_invalid_project' } }],
    ['an organization', { message: 'You must be a member of an organization to use the API.' }],
    ['a permission', { detail: 'This key lacks the permission to list.' }],
  ])('reads a 401 that names %s as a known key without permission', async (_name, body) => {
    const key = randomKey(recordings.keyPrefix);
    answerKey(key, answer.reply({ status: 401, body }));
    const result = await testKey(provider, key);
    expect(result).toMatchObject({ status: 'forbidden', details: { httpStatus: 401 } });
    expect(result.message).toMatch(/^[\x20-\x7e]{20,255}$/);
    expect(result.message).toContain('permission');
  });

  it.each<[string, unknown]>([
    ['a code', { error: { message: 'No access to this model.', code: 'invalid_api_key' } }],
    ['its text', { error: { message: 'Incorrect API key provided. See the models page.', code: null } }],
  ])('reads a 401 that names the key by %s as a refused key, whatever else it names', async (_name, body) => {
    const key = randomKey(recordings.keyPrefix);
    answerKey(key, answer.reply({ status: 401, body }));
    expect(await testKey(provider, key)).toMatchObject({ status: 'invalid' });
  });

  it('has a different message for every outcome', async () => {
    const seen = new Map<string, string>();
    for (const outcome of OUTCOMES) {
      const recording = recordings.answers.find((one) => one.outcome === outcome);
      if (recording === undefined) throw new Error(`no response is recorded for ${outcome}`);
      const key = randomKey(recordings.keyPrefix);
      answerKey(key, toAnswer(recording));
      seen.set((await testKey(provider, key)).message, outcome);
    }
    expect([...seen.values()]).toEqual([...OUTCOMES]);
  });

  it.each<[string, Answer]>([
    ['404', answer.error(404)],
    ['405 without a body', answer.reply({ status: 405, body: '' })],
    ['422', answer.error(422)],
    ['500', answer.error(500)],
    ['502 with a web page', answer.html(502)],
    ['529', answer.error(529)],
    ['200 with a web page', answer.html()],
    ['200 with other JSON', answer.reply({ body: { hello: 'world' } })],
    ['200 with an error', answer.reply({ body: { error: { message: 'no', code: 'no' } } })],
    ['200 without a body', answer.reply({ body: '' })],
    ['204', answer.reply({ status: 204, body: '' })],
    ['a redirect', answer.redirect(302, 'http://127.0.0.1:1/')],
  ])('reads %s as an error, never as a valid key', async (_name, one) => {
    const key = randomKey(recordings.keyPrefix);
    answerKey(key, one);
    const result = await testKey(provider, key);
    expect(result.status).toBe('error');
    expect(result.details.httpStatus).not.toBeNull();
    expect(upstream.requests.filter((request) => request.key === key)).toHaveLength(1);
  });

  it.each([404, 500, 300])('reads a valid body with status %i as an error', async (status) => {
    const key = randomKey(recordings.keyPrefix);
    const good = recordings.answers.find((one) => one.outcome === 'valid');
    answerKey(key, answer.reply({ status, body: good?.body }));
    expect(await testKey(provider, key)).toMatchObject({ status: 'error', details: { httpStatus: status } });
  });

  it.each<[string, Answer]>([
    ['a reset within the body', fault.resetInBody()],
    ['a body shorter than its content-length', fault.shortBody()],
    ['a body without an end', fault.endlessJson()],
  ])('reads %s as an error', async (_name, one) => {
    const key = randomKey(recordings.keyPrefix);
    answerKey(key, one);
    expect(await testKey(provider, key)).toMatchObject({
      status: 'error',
      details: { httpStatus: null, latencyMs: null },
    });
  });

  it('reads a compressed response, which was not requested, as an error', async () => {
    const key = randomKey(recordings.keyPrefix);
    const good = recordings.answers.find((one) => one.outcome === 'valid');
    answerKey(
      key,
      answer.reply({
        headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' },
        body: gzipSync(JSON.stringify(good?.body)),
      }),
    );
    expect(await testKey(provider, key)).toMatchObject({ status: 'error', details: { httpStatus: 200 } });
  });

  it.each<[string, Answer]>([
    ['sends nothing', fault.silent()],
    ['stops sending within its response', fault.silentAfterHeaders('application/json')],
    ['sends its body byte by byte', fault.slowBody()],
  ])('ends in time when the provider %s', async (_name, one) => {
    const key = randomKey(recordings.keyPrefix);
    answerKey(key, one);
    expect(await testKey(provider, key, { timeoutMs: 120 })).toMatchObject({
      status: 'timeout',
      details: { httpStatus: null, latencyMs: null, billed: provider.keyTest.billed },
    });
  });

  it('distinguishes an unreachable provider from a slow one', async () => {
    const stopped = await startUpstream();
    await stopped.stop();
    expect(await testKey(provider, randomKey(recordings.keyPrefix), { url: stopped.url })).toMatchObject({
      status: 'unreachable',
      // Not the endpoint, which is the operator's here.
      message: `${provider.name} could not be reached. Test again later; if that does not help, ask the operator.`,
      details: { httpStatus: null, latencyMs: null, billed: false },
    } satisfies Partial<KeyTestResult>);
  });
});

describe('the message of a test says what to do where a response has a provider-specific meaning', () => {
  it.each([
    ['huggingface', 'forbidden', 'Make calls to Inference Providers'],
    ['openai', 'forbidden', 'permission to read models'],
    ['anthropic', 'no_credit', 'Claude Console'],
    ['perplexity', 'invalid', 'also does when its account has no credit'],
    ['openrouter', 'forbidden', 'manages other keys'],
    ['openrouter', 'no_credit', 'Raise the limit of the key'],
  ])('%s, %s: %s', async (id, outcome, words) => {
    const [, provider, recordings] = providers.find(([known]) => known === id) ?? [];
    const recording = recordings?.answers.find((one) => one.outcome === outcome);
    if (provider === undefined || recording === undefined) throw new Error('no response is recorded');
    const key = randomKey(recordings?.keyPrefix ?? '');
    answerKey(key, toAnswer(recording));
    expect((await testKey(provider, key)).message).toContain(words);
  });
});

/** Strings long enough that they could only come from this body. */
function textsOf(body: unknown): string[] {
  if (typeof body === 'string') return body.length > 15 ? [body] : [];
  return typeof body === 'object' && body !== null ? Object.values(body).flatMap(textsOf) : [];
}
