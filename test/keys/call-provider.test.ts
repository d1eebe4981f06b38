import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createCallProvider, createKeyTestLimit, createProbeKey } from '../../src/keys/call-provider.ts';
import type { Dialer } from '../../src/lib/net/dialer.ts';
import { AppError } from '../../src/lib/errors.ts';
import type { RateLimit } from '../../src/lib/rate-limit.ts';
import { createLoopGuard } from '../../src/lib/net/loop-guard.ts';
import { custom } from '../../src/providers/custom.ts';
import { demo } from '../../src/providers/demo.ts';
import { groq } from '../../src/providers/groq.ts';
import { ollama } from '../../src/providers/ollama.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { startDemoUpstream } from '../../src/dev/demo-upstream/server.ts';
import { evidence } from '../support/evidence.ts';
import { createTestDialer } from '../support/local-upstreams.ts';
import { answer, fault, startUpstream, type Answer, type Upstream } from '../support/upstream.ts';

let upstream: Upstream;
/** The only keys that the upstream accepts. */
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

interface TestInput {
  userId?: string;
  provider?: Provider;
  secret?: string;
  /** The upstream's by default. */
  endpoint?: string | null;
  signal?: AbortSignal;
}

const loopGuard = createLoopGuard('a secret');

interface TesterOptions {
  through?: Pick<Dialer, 'request'>;
  overrides?: Record<string, string>;
  timeoutMs?: number;
  limit?: RateLimit;
}

function createTester({
  through = createTestDialer(),
  overrides = {},
  timeoutMs = 10_000,
  limit = createKeyTestLimit(),
}: TesterOptions = {}) {
  const callProvider = createCallProvider({
    dialer: through,
    loopGuard,
    upstreams: { overrides },
    timeoutMs,
    limit,
  });
  return (input: TestInput = {}) =>
    callProvider({
      userId: 'u1',
      provider: custom,
      secret: randomKey(),
      endpoint: upstream.url,
      signal: new AbortController().signal,
      ...input,
    });
}

/** A dialer that reports every address as public. */
function asPublic(): Pick<Dialer, 'request'> {
  const real = createTestDialer();
  return { request: async (request) => ({ ...(await real.request(request)), isFromPublicAddress: true }) };
}

const sentKeys = () => upstream.requests.map((request) => request.key);

describe("a key for the user's own endpoint", () => {
  it('is valid when a random key is refused first and the key is accepted', async () => {
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

  it('is invalid when it is refused like the random key', async () => {
    expect(await createTester()()).toMatchObject({ status: 'invalid', details: { httpStatus: 401 } });
    expect(sentKeys()).toHaveLength(2);
  });

  it.each([400, 402, 403])('is sent where a random key is refused with %i', async (status) => {
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
  ] as const)(
    'is not sent (%s) when the response to the random key shows nothing about keys',
    async (status, one) => {
      upstream.answerAll(one);
      const secret = randomKey();
      const result = await createTester()({ secret });
      expect(result).toMatchObject({ status });
      expect(result.message).not.toMatch(/accepts this key|with this key/);
      expect(sentKeys()).toHaveLength(1);
      expect(sentKeys()).not.toContain(secret);
    },
  );

  it('that is empty is tested without a key, and unverified when the call succeeds', async () => {
    upstream.answerAll(answer.models());
    const result = await createTester()({ provider: ollama, secret: '' });
    expect(result.status).toBe('unverified');
    expect(result.message).toContain('without a key');
    expect(upstream.requests.map(({ headers }) => headers.authorization)).toEqual([undefined]);
  });

  it.each<[string, Answer]>([
    ['a refused key', answer.error(401)],
    ['a missing permission', answer.reply({ status: 401, body: { detail: 'You lack the permission.' } })],
  ])('that is empty is invalid where a 401 names %s, and the message asks for a key', async (_name, one) => {
    upstream.answerAll(one);
    const result = await createTester()({ secret: '' });
    expect(result.status).toBe('invalid');
    expect(result.message).toContain('requires a key');
    expect(upstream.requests).toHaveLength(1);
  });

  it('is sent with the loop guard header, and with no other header that a test does not need', async () => {
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
        loopGuard.rejectLoop(request.headers['x-ops-hop'] as string);
      }).toThrow(AppError);
    }
  });

  it('is dialled under the egress rules for users', async () => {
    const forbidding = createTestDialer({ deny: ['127.0.0.0/8'] });
    const result = await createTester({ through: forbidding })();
    expect(result).toMatchObject({ status: 'error', details: { httpStatus: null, latencyMs: null } });
    expect(result.message).toContain('not found, or is not allowed');
    expect(upstream.requests).toEqual([]);
  });

  it('is tested within one deadline for both calls', async () => {
    const secret = randomKey();
    upstream.answerKey(secret, fault.silent());
    const result = await createTester({ timeoutMs: 400 })({ secret });
    expect(result.status).toBe('timeout');
    expect(result.message).toMatch(/Check the endpoint of the key/);
    expect(sentKeys()).toHaveLength(2);
  });
});

describe('an address that is not public', () => {
  const unexpectedAnswers = [
    ['404', answer.error(404)],
    ['500', answer.error(500)],
    ['418', answer.error(418)],
    ['400', answer.error(400)],
    ['a web page', answer.html()],
    ['other JSON', answer.reply({ body: { secret: 'inside' } })],
    ['a redirect', answer.redirect(302, 'http://127.0.0.1:1/')],
  ] as const;

  it('has one result for all responses that are not from a provider, so that hosts cannot be explored', async () => {
    const results: unknown[] = [];
    const incomplete = [fault.resetInBody(), fault.shortBody(), fault.endlessJson()];
    for (const one of [...unexpectedAnswers.map(([, each]) => each), ...incomplete]) {
      upstream.answerAll(one);
      const { status, message, details } = await createTester()();
      results.push({ status, message, httpStatus: details.httpStatus });
    }
    expect(new Set(results.map((result) => JSON.stringify(result))).size).toBe(1);
    expect(results[0]).toMatchObject({ status: 'error', httpStatus: null });
  });

  it.each(unexpectedAnswers)(
    'is not treated like a public one, whose status is shown: %s',
    async (_name, one) => {
      upstream.answerAll(one);
      const result = await createTester({ through: asPublic() })();
      expect(result.details.httpStatus).not.toBeNull();
    },
  );

  it('shows the statuses that a provider would send: 401, 402, 403, 429', async () => {
    for (const status of [401, 402, 403, 429]) {
      upstream.answerAll(answer.error(status));
      expect((await createTester()()).details.httpStatus).toBe(status);
    }
  });
});

describe('an address of the operator or of the provider', () => {
  it('receives the key at once, without the loop guard header', async () => {
    const secret = randomKey();
    keys.push(secret);
    const test = createTester({ overrides: { groq: upstream.url } });
    expect(await test({ provider: groq, secret, endpoint: null })).toMatchObject({ status: 'valid' });
    expect(sentKeys()).toEqual([secret]);
    expect(upstream.requests[0]?.headers).not.toHaveProperty('x-ops-hop');
  });

  it('receives a random key first where the provider may ignore keys', async () => {
    upstream.answerAll(answer.models());
    const test = createTester({ overrides: { ollama: upstream.url } });
    expect(await test({ provider: ollama, endpoint: null })).toMatchObject({ status: 'unverified' });
  });

  it('that is missing is an error that says what to do, without a call', async () => {
    const result = await createTester()({ provider: ollama, endpoint: null });
    expect(result).toEqual({
      status: 'error',
      message: 'Ollama has no address here. Add the key again with its endpoint.',
      details: { latencyMs: null, httpStatus: null, billed: false },
    });
  });
});

describe('the demo', () => {
  it('refuses keys of another format, so that a key test can fail', async () => {
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
  it('counts the second call, with the real key; the caller has counted the first', async () => {
    const limit = createKeyTestLimit();
    const test = createTester({ limit });
    await limit.add('u1', 19);
    await test();
    expect(upstream.requests).toHaveLength(2);
    await expect(test()).rejects.toMatchObject({ code: 'rate_limited', status: 429 });
    expect(upstream.requests).toHaveLength(3);
  });
});

describe('an aborted test', () => {
  it('fails with the reason of the abort, and ends the call to the upstream', async () => {
    upstream.answerAll(fault.silent());
    const controller = new AbortController();
    const running = createTester()({ signal: controller.signal });
    await upstream.received(1);
    // The reason must not be read as an error of the upstream.
    const reason = new AppError('upstream_timeout', 'aborted');
    controller.abort(reason);
    await expect(running).rejects.toBe(reason);
    await upstream.closed(0);
  });

  it('makes no further call', async () => {
    const controller = new AbortController();
    upstream.answerAll(() => {
      controller.abort(new Error('aborted'));
    });
    await expect(createTester()({ signal: controller.signal })).rejects.toThrow('aborted');
    expect(upstream.requests).toHaveLength(1);
  });
});

describe('the result of a test', () => {
  it('contains no key and no text of the upstream, even if the upstream repeats the key', async () => {
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

describe('a probe key', () => {
  it.each([
    ['sk-or-v1-0123456789abcdef0123456789abcdef', /^sk-or-v1-[0-9a-f]{32}$/],
    ['0123456789abcdef0123456789abcdef', /^[0-9a-f]{32}$/],
    ['sk-proj-Abc9Abc9Abc9_Abc9', /^sk-[a-z]{4}-([A-Z][a-z]{2}\d){3}_[A-Z][a-z]{2}\d$/],
    ['p@ss/w0rd+with=signs', /^[a-z]@[a-z]{2}\/[a-z]\d[a-z]{2}\+[a-z]{4}=[a-z]{5}$/],
    ['---', /^[A-Za-z0-9]{3}$/],
    ['7', /^\d$/],
  ])('has the format and length of %s, and differs from it', (key, format) => {
    for (let count = 0; count < 50; count += 1) {
      const probe = createProbeKey(key);
      expect(probe).toMatch(format);
      expect(probe).not.toBe(key);
    }
  });

  it('keeps no prefix of a short key, since that could be the whole key', () => {
    expect(createProbeKey('team-x1')).toMatch(/^[a-z]{4}-[a-z]\d$/);
    const probes = Array.from({ length: 20 }, () => createProbeKey('team-x1'));
    expect(probes.filter((probe) => probe.startsWith('team'))).toEqual([]);
  });

  it('keeps no part of a key that only looks like it has a prefix', () => {
    for (const key of ['550e8400-e29b-41d4-a716-446655440000', 'abcd1234_efgh5678_ijkl9012_mnop3456']) {
      const probes = Array.from({ length: 20 }, () => createProbeKey(key));
      expect(probes.filter((probe) => probe.startsWith(key.slice(0, 8)))).toEqual([]);
    }
  });

  it('differs each time', () => {
    const probes = Array.from({ length: 20 }, () => createProbeKey('sk-0123456789abcdef'));
    expect(new Set(probes).size).toBe(20);
  });
});
