import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { PROVIDERS } from '../../src/providers/index.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { isAppError } from '../../src/lib/errors.ts';
import { userOwner } from '../../src/lib/owner.ts';
import { OUTCOMES, readRecordings, toAnswer } from '../providers/recordings.ts';
import { createDatabase } from '../support/database.ts';
import { evidence } from '../support/evidence.ts';
import { answer, fault, startUpstream, type Upstream } from '../support/upstream.ts';
import { createInstanceOptions } from './instance-options.ts';
import { createInstance, createPrincipal, randomKey, type Instance } from './instance.ts';

let instance: Instance;
/** Stands for every provider. */
let upstream: Upstream;

beforeAll(async () => {
  upstream = await startUpstream();
  const { appUrl } = await createDatabase();
  const upstreams = Object.fromEntries(PROVIDERS.map(({ id }) => [id, upstream.url]));
  instance = createInstance({ ...createInstanceOptions(appUrl), upstreams });
});
afterEach(() => {
  upstream.reset();
});
afterAll(async () => {
  await Promise.all([instance.close(), upstream.stop()]);
});

/** Providers whose keys have a known form; the others accept any key. */
const withForm = PROVIDERS.filter(({ requiresKey }) => requiresKey).map(
  (provider) => [provider.id, provider] as const,
);
const RECOGNIZED = new Set<string>(['valid', 'no_credit', 'rate_limited', 'forbidden']);

/** A key in a form that no provider has, and that begins like no provider's keys. */
function unknownForm({ key: { pattern } }: Provider): string {
  const key = `next.${randomBytes(16).toString('hex')}`;
  evidence.registerSecret('provider key', key);
  expect(key).not.toMatch(pattern);
  return key;
}

async function add(body: Parameters<Instance['keys']['add']>[1], principal = createPrincipal()) {
  const result = await instance.keys.add(principal, body, 'r').catch((error: unknown) => error);
  const pools = await instance.keys.readKeysByProvider(userOwner(principal.user.id));
  const stored = pools.get(body.provider)?.map((key) => key.decrypt()?.secret) ?? [];
  return { result, stored };
}

describe.each(withForm)('a key of an unknown form for %s', (id, provider) => {
  it.each(OUTCOMES.flatMap((outcome) => [undefined, false, true].map((validate) => [outcome, validate])))(
    'is tested; after the result %s with validate: %s it is stored only if the provider knows it',
    async (outcome, validate) => {
      const recording = readRecordings(id).answers.find((one) => one.outcome === outcome);
      if (recording === undefined) throw new Error(`no response is recorded for ${String(outcome)}`);
      const key = unknownForm(provider);
      upstream.answerAll(toAnswer(recording));
      const { result, stored } = await add({ provider: id, key, validate: validate as boolean | undefined });
      expect(upstream.requests).toHaveLength(1);
      if (RECOGNIZED.has(String(outcome))) {
        expect(result).toMatchObject({ key: { test_status: outcome } });
        expect(stored).toEqual([key]);
      } else {
        expect(result).toMatchObject({ status: 400, code: 'invalid_key_format' });
        expect(stored).toEqual([]);
      }
    },
  );

  it('is refused, never stored, while the provider gives no answer', async () => {
    upstream.answerAll(fault.resetBeforeHeaders());
    const { result, stored } = await add({ provider: id, key: unknownForm(provider) });
    expect(result).toMatchObject({ status: 400, code: 'invalid_key_format' });
    expect(stored).toEqual([]);
  });

  it("is refused without a test where it begins like another provider's", async () => {
    for (const other of PROVIDERS.filter((one) => one.key.prefix !== '' && one.id !== id)) {
      const key = `${other.key.prefix}..${randomBytes(8).toString('hex')}`;
      const { result } = await add({ provider: id, key });
      expect([other.id, isAppError(result, 'wrong_provider_key')]).toEqual([other.id, true]);
    }
    expect(upstream.requests).toEqual([]);
  });
});

describe('a key of an unknown form', () => {
  it('leaves its form in the log, and no part of itself in a log line or in an error', async () => {
    upstream.answerAll(answer.models());
    const [openai] = PROVIDERS;
    if (openai === undefined) throw new Error('there are no providers');
    const accepted = unknownForm(openai);
    await add({ provider: 'openai', key: accepted });
    expect(instance.logged()).toMatch(/"event":"key_form_unknown".*"provider":"openai".*"length":37/);
    upstream.answerAll(answer.keyEcho(401));
    const refused = unknownForm(openai);
    const { result } = await add({ provider: 'openai', key: refused });
    for (const key of [accepted, refused])
      for (const part of [key, key.slice(0, 12), key.slice(-12)])
        expect(instance.logged() + JSON.stringify(result)).not.toContain(part);
  });

  it('replaces a stored key only if the provider knows it', async () => {
    const principal = createPrincipal();
    const old = randomKey();
    const { key } = await instance.keys.add(principal, { provider: 'openai', key: old }, 'r');
    const [openai] = PROVIDERS;
    if (openai === undefined) throw new Error('there are no providers');
    const next = unknownForm(openai);
    upstream.answerAll(answer.error(401));
    const body = { provider: 'openai', key: next, key_id: key.id };
    expect((await add(body, principal)).stored).toEqual([old]);
    upstream.answerAll(answer.models());
    expect((await add(body, principal)).stored).toEqual([next]);
  });

  it('is not tested when it has a known form: service keys of OpenAI begin with their name', async () => {
    for (const name of ['or-team', 'or-v2', 'acme']) {
      const { result } = await add({ provider: 'openai', key: randomKey(`sk-${name}-`) });
      expect(result).toMatchObject({ key: { provider: 'openai', test_status: 'untested' } });
    }
    expect(upstream.requests).toEqual([]);
  });
});

it('the limit of tests comes before anything is written: a refused test has no audit event', async () => {
  const principal = createPrincipal();
  const owner = userOwner(principal.user.id);
  upstream.answerAll({ status: 401, body: { error: { message: 'no' } } });
  const addOne = () => add({ provider: 'groq', key: `next.${randomBytes(16).toString('hex')}` }, principal);
  const countEvents = () => instance.database.withOwner(owner, (sql) => sql.run('SELECT FROM audit_events'));
  for (let count = 0; count < 20; count += 1)
    expect((await addOne()).result).toMatchObject({ code: 'invalid_key_format' });
  expect(await countEvents()).toBe(20);
  for (let count = 0; count < 3; count += 1)
    expect((await addOne()).result).toMatchObject({ code: 'rate_limited' });
  expect(await countEvents()).toBe(20);
});
