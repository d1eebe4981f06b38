import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createKeyTester } from '../../src/keys/key-tester.ts';
import type { Dialer } from '../../src/lib/net/dialer.ts';
import { AppError } from '../../src/lib/errors.ts';
import { createLoopGuard } from '../../src/lib/net/loop-guard.ts';
import { custom } from '../../src/providers/custom.ts';
import { demo } from '../../src/providers/demo.ts';
import { groq } from '../../src/providers/groq.ts';
import { ollama } from '../../src/providers/ollama.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { startDemoUpstream } from '../../src/dev/demo-upstream/server.ts';
import { evidence } from '../support/evidence.ts';
import { createTestDialer } from '../support/local-upstreams.ts';
import { answer, fault, startUpstream, type Upstream } from '../support/upstream.ts';

let upstream: Upstream;
/** Takes no key but those in `keys`. */
const keys: string[] = [];

beforeAll(async () => {
  upstream = await startUpstream({ keys });
});
afterEach(() => {
  upstream.reset();
  keys.length = 0;
});
afterAll(() => upstream.stop());

function randomKey(): string {
  const key = `sk-test-${randomBytes(20).toString('hex')}`;
  evidence.registerSecret('provider key', key);
  return key;
}

interface Question {
  userId?: string;
  provider?: Provider;
  secret?: string;
  /** The upstream's by default. */
  endpoint?: string | null;
  signal?: AbortSignal;
}

const hops = createLoopGuard('a secret');

interface TesterOptions {
  through?: Pick<Dialer, 'request'>;
  overrides?: Record<string, string>;
  timeoutMs?: number;
}

function createTester({
  through = createTestDialer(),
  overrides = {},
  timeoutMs = 10_000,
}: TesterOptions = {}) {
  const tester = createKeyTester({ dialer: through, loopGuard: hops, upstreams: { overrides }, timeoutMs });
  return (question: Question = {}) =>
    tester.test({
      userId: 'u1',
      provider: custom,
      secret: randomKey(),
      endpoint: upstream.url,
      signal: new AbortController().signal,
      ...question,
    });
}

/** The same answers over the same wire, as if they came from a public address. */
function asPublic(): Pick<Dialer, 'request'> {
  const real = createTestDialer();
  return { request: async (request) => ({ ...(await real.request(request)), fromPublicAddress: true }) };
}

const sentKeys = () => upstream.requests.map((request) => request.key);

describe("a key for the user's own endpoint", () => {
  it('is valid when a random key was refused first and it was not', async () => {
    const secret = randomKey();
    keys.push(secret);
    expect(await createTester()({ secret })).toMatchObject({ status: 'valid', details: { httpStatus: 200 } });
    expect(sentKeys()).toEqual([expect.stringMatching(/^sk-[a-z]{4}-([a-z]|\d)+$/), secret]);
    expect(sentKeys()[0]).not.toBe(secret);
  });

  it('is unverified, and not sent at all, when the endpoint accepts a random key', async () => {
    upstream.answerAll(answer.models());
    const secret = randomKey();
    const result = await createTester()({ secret });
    expect(result).toMatchObject({ status: 'unverified', details: { httpStatus: 200, billed: false } });
    expect(result.message).toContain('accepts any key');
    expect(sentKeys()).toHaveLength(1);
    expect(sentKeys()).not.toContain(secret);
  });

  it('is invalid when it is refused like the random one', async () => {
    expect(await createTester()()).toMatchObject({ status: 'invalid', details: { httpStatus: 401 } });
    expect(sentKeys()).toHaveLength(2);
  });

  it.each([400, 402, 403])('is tried where a random key is refused with %i', async (status) => {
    const secret = randomKey();
    upstream.answerAll(answer.error(status));
    upstream.answerKey(secret, answer.models());
    expect(await createTester()({ secret })).toMatchObject({ status: 'valid' });
  });

  it.each([
    ['rate_limited', answer.error(429)],
    ['error', answer.error(404)],
    ['error', answer.error(500)],
    ['error', answer.html()],
    ['error', answer.reply({ body: { hello: 'world' } })],
  ] as const)('stays here (%s) when the answer to a random one says nothing of keys', async (status, one) => {
    upstream.answerAll(one);
    const secret = randomKey();
    const result = await createTester()({ secret });
    expect(result).toMatchObject({ status });
    expect(result.message).not.toMatch(/accepts this key|of this key/);
    expect(sentKeys()).toHaveLength(1);
    expect(sentKeys()).not.toContain(secret);
  });

  it('that was stored empty is asked about without any, and unverified when that is answered', async () => {
    upstream.answerAll(answer.models());
    const result = await createTester()({ provider: ollama, secret: '' });
    expect(result.status).toBe('unverified');
    expect(result.message).toContain('without a key');
    expect(upstream.requests.map(({ headers }) => headers.authorization)).toEqual([undefined]);
  });

  it('that was stored empty is invalid where a key is wanted, and the words say so', async () => {
    const result = await createTester()({ secret: '' });
    expect(result.status).toBe('invalid');
    expect(result.message).toContain('wants a key');
    expect(upstream.requests).toHaveLength(1);
  });

  it('goes out with a hop mark, and with nothing else that a test would not need', async () => {
    const secret = randomKey();
    keys.push(secret);
    await createTester()({ secret });
    for (const request of upstream.requests) {
      expect(Object.keys(request.headers).sort()).toEqual([
        'accept',
        'accept-encoding',
        'authorization',
        'connection',
        'host',
        'x-ops-hop',
      ]);
      expect(() => {
        hops.rejectLoop(request.headers['x-ops-hop'] as string);
      }).toThrow(AppError);
    }
  });

  it('is dialled under the rules for addresses that users bring', async () => {
    const forbidding = createTestDialer({ deny: ['127.0.0.0/8'] });
    const result = await createTester({ through: forbidding })();
    expect(result).toMatchObject({ status: 'error', details: { httpStatus: null, latencyMs: null } });
    expect(result.message).toContain('may not be reached');
    expect(upstream.requests).toEqual([]);
  });

  it('ends in one deadline for both calls', async () => {
    const secret = randomKey();
    upstream.answerKey(secret, fault.silent());
    expect(await createTester({ timeoutMs: 400 })({ secret })).toMatchObject({ status: 'timeout' });
    expect(sentKeys()).toHaveLength(2);
  });
});

describe('an address that is not public', () => {
  const odd = [
    ['404', answer.error(404)],
    ['500', answer.error(500)],
    ['418', answer.error(418)],
    ['400', answer.error(400)],
    ['a web page', answer.html()],
    ['other JSON', answer.reply({ body: { secret: 'inside' } })],
    ['a redirect', answer.redirect(302, 'http://127.0.0.1:1/')],
  ] as const;

  it('says one and the same for all that is no answer of a provider, so that nothing there is explored', async () => {
    const results: unknown[] = [];
    const cut = [fault.resetInBody(), fault.shortBody(), fault.endlessJson()];
    for (const one of [...odd.map(([, each]) => each), ...cut]) {
      upstream.answerAll(one);
      const { status, message, details } = await createTester()();
      results.push({ status, message, httpStatus: details.httpStatus });
    }
    expect(new Set(results.map((result) => JSON.stringify(result))).size).toBe(1);
    expect(results[0]).toMatchObject({ status: 'error', httpStatus: null });
  });

  it.each(odd)('is not treated like a public one, whose status is told: %s', async (_name, one) => {
    upstream.answerAll(one);
    const result = await createTester({ through: asPublic() })();
    expect(result.details.httpStatus).not.toBeNull();
  });

  it('tells what a provider would: 401, 402, 403, 429', async () => {
    for (const status of [401, 402, 403, 429]) {
      upstream.answerAll(answer.error(status));
      expect((await createTester()()).details.httpStatus).toBe(status);
    }
  });
});

describe("an address of the operator's or of a provider's file", () => {
  it('gets the key at once, without a hop mark', async () => {
    const secret = randomKey();
    keys.push(secret);
    const test = createTester({ overrides: { groq: upstream.url } });
    expect(await test({ provider: groq, secret, endpoint: null })).toMatchObject({ status: 'valid' });
    expect(sentKeys()).toEqual([secret]);
    expect(upstream.requests[0]?.headers).not.toHaveProperty('x-ops-hop');
  });

  it('gets a random key first where the provider may ignore keys', async () => {
    upstream.answerAll(answer.models());
    const test = createTester({ overrides: { ollama: upstream.url } });
    expect(await test({ provider: ollama, endpoint: null })).toMatchObject({ status: 'unverified' });
  });

  it('that is missing is an error that says what to do, and calls nobody', async () => {
    const result = await createTester()({ provider: ollama, endpoint: null });
    expect(result).toEqual({
      status: 'error',
      message: 'Ollama has no address here. Add the key again with its endpoint.',
      details: { latencyMs: null, httpStatus: null, billed: false },
    });
  });
});

describe('the demo', () => {
  it('refuses keys that are none of its own, so that a test of its keys tests something', async () => {
    const started = await startDemoUpstream();
    try {
      const test = createTester({ overrides: { demo: started.url } });
      const good = { provider: demo, secret: `demo-${randomBytes(8).toString('hex')}`, endpoint: null };
      expect(await test(good)).toMatchObject({ status: 'valid' });
      expect(await test({ ...good, secret: randomKey() })).toMatchObject({ status: 'invalid' });
    } finally {
      await started.stop();
    }
  });
});

describe('the limit of tests', () => {
  it('is 20 upstream calls a minute and user, the 21st is a 429 that says when to come back', async () => {
    const test = createTester({ overrides: { groq: upstream.url } });
    const question = { provider: groq, endpoint: null };
    for (let count = 0; count < 20; count += 1) await test(question);
    const error = await test(question).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'rate_limited', status: 429 });
    const seconds = Number((error as AppError).headers['retry-after']);
    expect(seconds).toBeGreaterThan(0);
    expect(seconds).toBeLessThanOrEqual(60);
    expect(upstream.requests).toHaveLength(20);
    expect(await test({ ...question, userId: 'u2' })).toMatchObject({ status: 'invalid' });
  });

  it('counts the call with a random key too', async () => {
    const test = createTester();
    for (let count = 0; count < 10; count += 1) await test();
    await expect(test()).rejects.toMatchObject({ code: 'rate_limited' });
    expect(upstream.requests).toHaveLength(20);
  });
});

describe('a test that its caller gives up', () => {
  it('fails with the reason, and ends the call to the upstream', async () => {
    upstream.answerAll(fault.silent());
    const controller = new AbortController();
    const running = createTester()({ signal: controller.signal });
    await upstream.received(1);
    // Not taken for what the upstream did.
    const reason = new AppError('upstream_timeout', 'gone');
    controller.abort(reason);
    await expect(running).rejects.toBe(reason);
    await upstream.closed(0);
  });

  it('makes no further call', async () => {
    const controller = new AbortController();
    upstream.answerAll(() => {
      controller.abort(new Error('gone'));
    });
    await expect(createTester()({ signal: controller.signal })).rejects.toThrow('gone');
    expect(upstream.requests).toHaveLength(1);
  });
});

describe('what comes out of a test', () => {
  it('holds no key and no word of the upstream, also when the upstream repeats the key', async () => {
    const secret = randomKey();
    for (const status of [200, 400, 401, 402, 403, 404, 429, 500]) {
      upstream.answerAll(answer.error(401));
      upstream.answerKey(secret, answer.keyEcho(status));
      for (const through of [createTestDialer(), asPublic()]) {
        const result = await createTester({ through })({ secret });
        const text = JSON.stringify(result);
        expect(text).not.toContain(secret);
        expect(text).not.toContain('Incorrect API key');
      }
    }
  });
});
