import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { isAppError } from '../../src/lib/errors.ts';
import { setClocksAhead } from '../support/clocks.ts';
import { createDatabase, stack } from '../support/stack.ts';
import { createInstance, createPrincipal, randomKey, type Instance } from './instance.ts';
import { createInstanceOptions } from './instance-options.ts';
import { createRelay, type Relay } from './keycloak-relay.ts';

const LIMIT_MS = 3_000;
/** Longer than a test may take: what ends a write that hangs is the end of its own time. */
const NEVER_MS = 60_000;

let direct: Instance;
let relay: Relay;
let relayedOptions: Parameters<typeof createInstance>[0];
const opened: Instance[] = [];

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  relay = await createRelay(stack.keycloak.url);
  const options = createInstanceOptions(appUrl);
  direct = createInstance(options);
  opened.push(direct);
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
  await Promise.all(opened.map((each) => each.close()));
  await relay.close();
});

/** An instance that reaches Keycloak by way of the relay and has no token yet. */
function relayed(): Instance {
  const made = createInstance(relayedOptions);
  opened.push(made);
  return made;
}

const openaiKey = () => ({ provider: 'openai', key: randomKey(), label: null, endpoint: null });
const isToken = (call: IncomingMessage) => call.url?.endsWith('/token') === true;
const isChange = (call: IncomingMessage) => call.url?.includes('/users') === true && call.method !== 'GET';

async function refusalOf(work: Promise<unknown>): Promise<string> {
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

describe('a write whose time runs out', () => {
  it('while Keycloak is slow to answer, begins no change', async () => {
    const principal = createPrincipal();
    const changes: string[] = [];
    relay.before((call) => {
      if (isChange(call)) changes.push(String(call.method));
      return 'pass';
    });
    const instance = relayed();
    await instance.keys.listKeys(principal.user);
    using late = new DisposableStack();
    relay.after(() => {
      // Nearly all of its time is gone when the first answer comes.
      late.use(setClocksAhead(LIMIT_MS - 500));
      return 'pass';
    });
    expect(await refusalOf(instance.keys.add(principal, openaiKey(), 'r1'))).toBe('busy');
    expect(changes).toEqual([]);
  });

  it('in the middle of a change cuts it off, tells the trail, and leaves the lock free', async () => {
    const principal = createPrincipal();
    const { key: first } = await direct.keys.add(principal, openaiKey(), 'r1');
    const cutOff: Promise<unknown>[] = [];
    relay.before((call) => {
      if (!isChange(call)) return 'pass';
      cutOff.push(once(call.socket, 'close'));
      return 'hold';
    });
    const add = relayed().keys.add(principal, openaiKey(), 'r2');
    expect(await refusalOf(add)).toBe('keycloak_unavailable');
    expect(cutOff).toHaveLength(1);
    await Promise.all(cutOff);
    expect(await actionsOf(principal.user.id)).toEqual(['key.added', 'key.added', 'key.add_unconfirmed']);
    const { key: next } = await direct.keys.add(principal, openaiKey(), 'r3');
    const listed = await direct.keys.listKeys(principal.user);
    expect(listed.map((key) => key.id)).toEqual([first.id, next.id]);
    expect(cutOff).toHaveLength(1);
  });

  it('while it waits for a token, sends nothing when the token comes after all', async () => {
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
    expect(await refusalOf(add)).toBe('keycloak_unavailable');
    late.resolve(undefined);
    const other = createPrincipal();
    expect(await instance.keys.listKeys(other.user)).toEqual([]);
    expect(calls).toEqual(['token', expect.stringContaining(other.user.id)]);
  });
});
