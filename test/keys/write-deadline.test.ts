import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { isAppError } from '../../src/lib/errors.ts';
import { setClocksAhead } from '../support/clocks.ts';
import { createDatabase } from '../support/database.ts';
import { stack } from '../support/stack.ts';
import { createInstance, createPrincipal, randomKey, type Instance } from './instance.ts';
import { createInstanceOptions } from './instance-options.ts';
import { createRelay, type Relay } from './keycloak-relay.ts';

const LIMIT_MS = 3_000;
/** Longer than a test may run, so that only the write's own deadline can end a hanging call. */
const NEVER_MS = 60_000;

let direct: Instance;
let relay: Relay;
let relayedOptions: Parameters<typeof createInstance>[0];
const instances: Instance[] = [];

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  relay = await createRelay(stack.keycloak.url);
  const options = createInstanceOptions(appUrl);
  direct = createInstance(options);
  instances.push(direct);
  relayedOptions = {
    ...options,
    keycloakUrl: relay.url,
    keycloakTimeoutMs: NEVER_MS,
    lockTimeoutMs: LIMIT_MS,
  };
});

afterEach(() => {
  relay.passAll();
});

afterAll(async () => {
  await Promise.all(instances.map((each) => each.close()));
  await relay.close();
});

/** Creates an instance that calls Keycloak through the relay and has no token yet. */
function relayed(): Instance {
  const made = createInstance(relayedOptions);
  instances.push(made);
  return made;
}

const openaiKey = () => ({ provider: 'openai', key: randomKey(), label: null, endpoint: null });
const isToken = (call: IncomingMessage) => call.url?.endsWith('/token') === true;
const isChange = (call: IncomingMessage) => call.url?.includes('/users') === true && call.method !== 'GET';

async function errorCodeOf(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!isAppError(error)) throw new Error('expected an AppError', { cause: error });
  return error.code;
}

async function actionsOf(userId: string): Promise<string[]> {
  const rows = await direct.database.withOwner(`user:${userId}`, (sql) =>
    sql.rows(z.object({ action: z.string() }), 'SELECT action FROM audit_events ORDER BY id'),
  );
  return rows.map((row) => row.action);
}

describe('a write that reaches its deadline', () => {
  it('while Keycloak responds slowly, starts no change', async () => {
    const principal = createPrincipal();
    const changes: string[] = [];
    relay.before((call) => {
      if (isChange(call)) changes.push(String(call.method));
      return 'pass';
    });
    const instance = relayed();
    await instance.keys.listKeys(principal);
    using late = new DisposableStack();
    relay.after(() => {
      // At the first response only 500 ms are left.
      late.use(setClocksAhead(LIMIT_MS - 500));
      return 'pass';
    });
    expect(await errorCodeOf(instance.keys.add(principal, openaiKey(), 'r1'))).toBe('busy');
    expect(changes).toEqual([]);
  });

  it('during a change aborts it, writes an audit event and releases the lock', async () => {
    const principal = createPrincipal();
    const { key: first } = await direct.keys.add(principal, openaiKey(), 'r1');
    const aborted: Promise<unknown>[] = [];
    relay.before((call) => {
      if (!isChange(call)) return 'pass';
      aborted.push(once(call.socket, 'close'));
      return 'hold';
    });
    const add = relayed().keys.add(principal, openaiKey(), 'r2');
    expect(await errorCodeOf(add)).toBe('keycloak_unavailable');
    expect(aborted).toHaveLength(1);
    await Promise.all(aborted);
    expect(await actionsOf(principal.user.id)).toEqual(['key.added', 'key.added', 'key.add_unconfirmed']);
    const { key: next } = await direct.keys.add(principal, openaiKey(), 'r3');
    const listed = await direct.keys.listKeys(principal);
    expect(listed.map((key) => key.id)).toEqual([first.id, next.id]);
    expect(aborted).toHaveLength(1);
  });

  it('while waiting for a token, sends nothing when the token arrives late', async () => {
    const late = Promise.withResolvers<undefined>();
    const calls: string[] = [];
    relay.before((call) => {
      calls.push(isToken(call) ? 'token' : String(call.url));
      return 'pass';
    });
    relay.after(async (call) => {
      if (isToken(call)) await late.promise;
      return 'pass' as const;
    });
    const instance = relayed();
    const add = instance.keys.add(createPrincipal(), openaiKey(), 'r1');
    expect(await errorCodeOf(add)).toBe('keycloak_unavailable');
    late.resolve(undefined);
    const other = createPrincipal();
    expect(await instance.keys.listKeys(other)).toEqual([]);
    expect(calls).toEqual(['token', expect.stringContaining(other.user.id)]);
  });
});
