import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { isAppError } from '../../src/lib/errors.ts';
import { createDatabase } from '../support/database.ts';
import { adminClient, stack } from '../support/stack.ts';
import {
  createInstance,
  createPrincipal,
  randomKey,
  type Instance,
  type InstanceOptions,
} from './instance.ts';
import { createInstanceOptions } from './instance-options.ts';
import { createRelay, type Relay } from './keycloak-relay.ts';

let options: InstanceOptions;
let direct: Instance;
let relay: Relay;
/** An instance that calls Keycloak through the relay. */
let relayed: Instance;
const instances: Instance[] = [];

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  relay = await createRelay(stack.keycloak.url);
  options = createInstanceOptions(appUrl);
  direct = openInstance({});
  relayed = openInstance({ keycloakUrl: relay.url });
});

afterEach(() => {
  relay.passAll();
});

afterAll(async () => {
  await Promise.all(instances.map((each) => each.close()));
  await relay.close();
});

function openInstance(change: Partial<InstanceOptions>): Instance {
  const made = createInstance({ ...options, ...change });
  instances.push(made);
  return made;
}

const openaiKey = () => ({ provider: 'openai', key: randomKey(), label: null, endpoint: null });
const openrouterKey = () => ({
  provider: 'openrouter',
  key: randomKey('sk-or-v1-'),
  label: null,
  endpoint: null,
});

async function idsOf(principal: ReturnType<typeof createPrincipal>): Promise<string[]> {
  return (await direct.keys.listKeys(principal)).map((key) => key.id);
}

async function actionsOf(userId: string): Promise<string[]> {
  const rows = await direct.database.withOwner(`user:${userId}`, (sql) =>
    sql.rows(z.object({ action: z.string() }), 'SELECT action FROM audit_events ORDER BY id'),
  );
  return rows.map((row) => row.action);
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (isAppError(error)) return error.code;
    throw error;
  }
  return 'none';
}

describe('concurrent writes of one owner', () => {
  it('lose nothing: 20 adds by two processes to two attributes of one record', async () => {
    const principal = createPrincipal();
    const [one, two] = [openInstance({ lockTimeoutMs: 60_000 }), openInstance({ lockTimeoutMs: 60_000 })];
    const adds = Array.from({ length: 20 }, (_, at) =>
      (at % 2 === 0 ? one : two).keys.add(principal, at % 4 < 2 ? openaiKey() : openrouterKey(), `r${at}`),
    );
    const added = (await Promise.all(adds)).map((answer) => answer.key.id);
    expect((await idsOf(principal)).toSorted()).toEqual(added.toSorted());
    expect(new Set(added).size).toBe(20);
  });

  it('never store more than ten keys of a provider', async () => {
    const principal = createPrincipal();
    const [one, two] = [openInstance({ lockTimeoutMs: 60_000 }), openInstance({ lockTimeoutMs: 60_000 })];
    const adds = Array.from({ length: 13 }, (_, at) =>
      codeOf((at % 2 === 0 ? one : two).keys.add(principal, openaiKey(), `r${at}`)),
    );
    const codes = await Promise.all(adds);
    expect(codes.filter((code) => code === 'none')).toHaveLength(10);
    expect(codes.filter((code) => code === 'pool_full')).toHaveLength(3);
    expect(await idsOf(principal)).toHaveLength(10);
  });

  it('wait for each other, and time out as busy with retry-after', async () => {
    const principal = createPrincipal();
    await direct.keys.add(principal, openaiKey(), 'r1');
    const [taken, release] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
    const holder = direct.database.withConnection(async (connection) => {
      const name = `keys user:${principal.user.id}`;
      await connection.run('SELECT pg_advisory_lock(hashtextextended($1, 0))', [name]);
      taken.resolve(undefined);
      await release.promise;
      await connection.run('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [name]);
    });
    try {
      await taken.promise;
      const shortTimeout = openInstance({ lockTimeoutMs: 10_000 });
      const refused = ['r2', 'r3'].map((id) =>
        shortTimeout.keys.add(principal, openaiKey(), id).catch((error: unknown) => error),
      );
      // Writes of another owner do not wait.
      expect(await codeOf(shortTimeout.keys.add(createPrincipal(), openaiKey(), 'r4'))).toBe('none');
      for (const error of await Promise.all(refused))
        expect(error).toMatchObject({ code: 'busy', status: 503, headers: { 'retry-after': '5' } });
      const longTimeout = codeOf(direct.keys.add(principal, openaiKey(), 'r5'));
      release.resolve(undefined);
      expect(await longTimeout).toBe('none');
    } finally {
      release.resolve(undefined);
      await holder;
    }
    expect(await idsOf(principal)).toHaveLength(2);
  });
});

describe('a write to Keycloak', () => {
  const isUpdate = (call: { method?: string | undefined; url?: string | undefined }) =>
    call.method === 'PUT' && call.url?.includes('/users/') === true;

  it('that was answered 204 but not stored is detected by reading back, and repeated', async () => {
    const principal = createPrincipal();
    let dropped = 0;
    relay.before((call) => (isUpdate(call) && (dropped += 1) <= 2 ? { answer: 204 } : 'pass'));
    const { key } = await relayed.keys.add(principal, openaiKey(), 'r1');
    expect(dropped).toBe(3);
    expect(await idsOf(principal)).toEqual([key.id]);
    expect(await actionsOf(principal.user.id)).toEqual(['key.added']);
  });

  it.each([409, 500])('that collided with another (%i) is repeated', async (status) => {
    const principal = createPrincipal();
    let refused = 0;
    relay.before((call) => (isUpdate(call) && (refused += 1) === 1 ? { answer: status } : 'pass'));
    const { key } = await relayed.keys.add(principal, openaiKey(), 'r1');
    expect(refused).toBe(2);
    expect(await idsOf(principal)).toEqual([key.id]);
  });

  it('that is never stored ends as busy, with an unconfirmed audit event', async () => {
    const principal = createPrincipal();
    relay.before((call) => (isUpdate(call) ? { answer: 204 } : 'pass'));
    expect(await codeOf(relayed.keys.add(principal, openaiKey(), 'r1'))).toBe('busy');
    expect(await idsOf(principal)).toEqual([]);
    expect(await actionsOf(principal.user.id)).toEqual(['key.added', 'key.add_unconfirmed']);
  });

  it('of a delete that was executed and answered as a collision counts as deleted', async () => {
    const principal = createPrincipal();
    const { key } = await direct.keys.add(principal, openaiKey(), 'r1');
    let updates = 0;
    relay.after((call) => (isUpdate(call) && (updates += 1) === 1 ? { answer: 409 } : 'pass'));
    expect(await relayed.keys.remove(principal, 'openai', key.id, 'r2')).toMatchObject({ deleted: 1 });
    expect(updates).toBe(2);
    expect(await idsOf(principal)).toEqual([]);
    expect(await actionsOf(principal.user.id)).toEqual(['key.added', 'key.deleted']);
  });

  it('of an add that was executed and answered as a collision stores one key', async () => {
    const principal = createPrincipal();
    let updates = 0;
    relay.after((call) => (isUpdate(call) && (updates += 1) === 1 ? { answer: 500 } : 'pass'));
    const { key } = await relayed.keys.add(principal, openaiKey(), 'r1');
    expect(updates).toBe(2);
    expect(await idsOf(principal)).toEqual([key.id]);
  });

  it.each([429, 503, 403])('that Keycloak refuses (%i) is not repeated', async (status) => {
    const principal = createPrincipal();
    let refused = 0;
    relay.before((call) => (isUpdate(call) && (refused += 1) > 0 ? { answer: status } : 'pass'));
    expect(await codeOf(relayed.keys.add(principal, openaiKey(), 'r1'))).toBe('keycloak_unavailable');
    expect(refused).toBe(1);
    expect(await idsOf(principal)).toEqual([]);
    expect(await actionsOf(principal.user.id)).toEqual(['key.added', 'key.add_unconfirmed']);
  });

  it('that cannot be read back, since Keycloak failed, is audited as unconfirmed and not lost', async () => {
    const principal = createPrincipal();
    const secret = openaiKey();
    let isDown = false;
    relay.after((call) => {
      if (isUpdate(call)) isDown = true;
      return 'pass';
    });
    relay.before(() => (isDown ? { answer: 502 } : 'pass'));
    expect(await codeOf(relayed.keys.add(principal, secret, 'r1'))).toBe('keycloak_unavailable');
    expect(await actionsOf(principal.user.id)).toEqual(['key.added', 'key.add_unconfirmed']);
    // A second attempt is refused as a duplicate.
    expect(await codeOf(direct.keys.add(principal, secret, 'r2'))).toBe('duplicate_key');
    expect(await idsOf(principal)).toHaveLength(1);
  });

  it('leaves everything else in the record unchanged', async () => {
    const principal = createPrincipal();
    await direct.keys.add(principal, openaiKey(), 'r1');
    const admin = await adminClient(stack.keycloak.vaultRealm);
    const [found] = await admin.users.find({ username: `user.${principal.user.id}`, exact: true });
    const id = String(found?.id);
    const before = await admin.users.findOne({ id });
    const note = ['first "quoted" 🔑\n', ' trailing blank '];
    await admin.users.update(
      { id },
      { ...before, firstName: 'Kept', attributes: { ...before?.attributes, note, byok_later: ['{"v":2}'] } },
    );
    await direct.keys.add(principal, openrouterKey(), 'r2');
    const after = await admin.users.findOne({ id });
    const attributes = after?.attributes as Record<string, string[]>;
    expect(attributes['note']?.toSorted()).toEqual(note.toSorted());
    expect(attributes['byok_later']).toEqual(['{"v":2}']);
    expect(attributes['byok_openai']).toEqual(
      (before?.attributes as Record<string, string[]>)['byok_openai'],
    );
    expect(after).toMatchObject({ enabled: false, username: `user.${principal.user.id}` });
  });
});

describe('a process that is killed during a write', () => {
  /** Kills a writer process before or after its nth update. Returns the ids of the keys that it confirmed. */
  async function killWriterAt(moment: 'before' | 'after', nth: number, userId: string): Promise<string[]> {
    const confirmed: string[] = [];
    const child = spawn(process.execPath, [fileURLToPath(new URL('writer-process.ts', import.meta.url))], {
      env: { ...process.env, WRITER_OPTIONS: JSON.stringify({ ...options, keycloakUrl: relay.url, userId }) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = once(child, 'exit');
    const lines = createInterface(child.stdout).on('line', (line) => confirmed.push(line));
    const closed = once(lines, 'close');
    let updates = 0;
    const isNthUpdate = (call: { method?: string | undefined }) => {
      if (call.method !== 'PUT' || (updates += 1) !== nth) return false;
      child.kill('SIGKILL');
      return true;
    };
    relay[moment]((call: { method?: string | undefined }) => (isNthUpdate(call) ? 'hold' : 'pass'));
    const [, signal] = (await exited) as [number | null, string | null];
    await closed;
    expect(signal).toBe('SIGKILL');
    return confirmed;
  }

  it('before Keycloak receives it leaves the old keys', async () => {
    const principal = createPrincipal();
    const confirmed = await killWriterAt('before', 3, principal.user.id);
    expect(confirmed).toHaveLength(2);
    expect(await idsOf(principal)).toEqual(confirmed);
  });

  it('after Keycloak executes it leaves the new keys, and the next write does not wait', async () => {
    const principal = createPrincipal();
    const confirmed = await killWriterAt('after', 3, principal.user.id);
    expect(confirmed).toHaveLength(2);
    const listed = await idsOf(principal);
    expect(listed.slice(0, 2)).toEqual(confirmed);
    expect(listed).toHaveLength(3);
    const { key } = await direct.keys.add(principal, openaiKey(), 'r1');
    expect(await idsOf(principal)).toEqual([...listed, key.id]);
  });
});

describe('the loss of the Postgres connection during a write', () => {
  it('ends it as database_unavailable with the old or the new keys, and the next write works', async () => {
    const principal = createPrincipal();
    const { key } = await direct.keys.add(principal, openaiKey(), 'r1');
    const lost = openInstance({ keycloakUrl: relay.url });
    let isCut = false;
    relay.after(async (call) => {
      if (call.method === 'PUT' && !isCut) {
        isCut = true;
        // pg_locks lists the locks of the whole server, which other tests use too.
        await direct.database.run(
          `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
        );
      }
      return 'pass' as const;
    });
    expect(await codeOf(lost.keys.add(principal, openaiKey(), 'r2'))).toBe('database_unavailable');
    expect(isCut).toBe(true);
    const listed = await idsOf(principal);
    expect(listed[0]).toBe(key.id);
    expect(listed).toHaveLength(2);
    const { key: next } = await lost.keys.add(principal, openaiKey(), 'r3');
    expect(await idsOf(principal)).toEqual([...listed, next.id]);
  });
});
