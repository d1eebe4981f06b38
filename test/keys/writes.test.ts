import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { isAppError } from '../../src/lib/errors.ts';
import { adminClient, createDatabase, stack } from '../support/stack.ts';
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
/** An instance whose calls to Keycloak go through the relay. */
let relayed: Instance;
const opened: Instance[] = [];

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  relay = await createRelay(stack.keycloak.url);
  options = createInstanceOptions(appUrl);
  direct = another({});
  relayed = another({ keycloakUrl: relay.url });
});

afterEach(() => {
  relay.passAll();
});

afterAll(async () => {
  await Promise.all(opened.map((each) => each.close()));
  await relay.close();
});

function another(change: Partial<InstanceOptions>): Instance {
  const made = createInstance({ ...options, ...change });
  opened.push(made);
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
  return (await direct.keys.listKeys(principal.user)).map((key) => key.id);
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

describe('writers of one owner', () => {
  it('lose nothing: 20 adds at once from two processes, to two attributes of one record', async () => {
    const principal = createPrincipal();
    const [one, two] = [another({ lockTimeoutMs: 60_000 }), another({ lockTimeoutMs: 60_000 })];
    const adds = Array.from({ length: 20 }, (_, at) =>
      (at % 2 === 0 ? one : two).keys.add(principal, at % 4 < 2 ? openaiKey() : openrouterKey(), `r${at}`),
    );
    const added = (await Promise.all(adds)).map((answer) => answer.key.id);
    expect((await idsOf(principal)).toSorted()).toEqual(added.toSorted());
    expect(new Set(added).size).toBe(20);
  });

  it('never store more than ten keys of a provider between them', async () => {
    const principal = createPrincipal();
    const [one, two] = [another({ lockTimeoutMs: 60_000 }), another({ lockTimeoutMs: 60_000 })];
    const adds = Array.from({ length: 13 }, (_, at) =>
      codeOf((at % 2 === 0 ? one : two).keys.add(principal, openaiKey(), `r${at}`)),
    );
    const codes = await Promise.all(adds);
    expect(codes.filter((code) => code === 'none')).toHaveLength(10);
    expect(codes.filter((code) => code === 'pool_full')).toHaveLength(3);
    expect(await idsOf(principal)).toHaveLength(10);
  });

  it('wait for one another, and give up as busy with a time to come back', async () => {
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
      const impatient = another({ lockTimeoutMs: 10_000 });
      const refused = ['r2', 'r3'].map((id) =>
        impatient.keys.add(principal, openaiKey(), id).catch((error: unknown) => error),
      );
      // Another owner's writes do not wait for this one's.
      expect(await codeOf(impatient.keys.add(createPrincipal(), openaiKey(), 'r4'))).toBe('none');
      for (const error of await Promise.all(refused))
        expect(error).toMatchObject({ code: 'busy', status: 503, headers: { 'retry-after': '5' } });
      const patient = codeOf(direct.keys.add(principal, openaiKey(), 'r5'));
      release.resolve(undefined);
      expect(await patient).toBe('none');
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

  it('that was answered 204 and not kept is found by reading back, and repeated', async () => {
    const principal = createPrincipal();
    let swallowed = 0;
    relay.before((call) => (isUpdate(call) && (swallowed += 1) <= 2 ? { answer: 204 } : 'pass'));
    const { key } = await relayed.keys.add(principal, openaiKey(), 'r1');
    expect(swallowed).toBe(3);
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

  it('that never holds ends as busy, and the trail says that it is unconfirmed', async () => {
    const principal = createPrincipal();
    relay.before((call) => (isUpdate(call) ? { answer: 204 } : 'pass'));
    expect(await codeOf(relayed.keys.add(principal, openaiKey(), 'r1'))).toBe('busy');
    expect(await idsOf(principal)).toEqual([]);
    expect(await actionsOf(principal.user.id)).toEqual(['key.added', 'key.add_unconfirmed']);
  });

  it('of a delete that was done and then called a collision still counts as that delete', async () => {
    const principal = createPrincipal();
    const { key } = await direct.keys.add(principal, openaiKey(), 'r1');
    let updates = 0;
    relay.after((call) => (isUpdate(call) && (updates += 1) === 1 ? { answer: 409 } : 'pass'));
    expect(await relayed.keys.remove(principal, 'openai', key.id, 'r2')).toMatchObject({ deleted: 1 });
    expect(updates).toBe(2);
    expect(await idsOf(principal)).toEqual([]);
    expect(await actionsOf(principal.user.id)).toEqual(['key.added', 'key.deleted']);
  });

  it('of an add that was done and then called a collision still makes one key', async () => {
    const principal = createPrincipal();
    let updates = 0;
    relay.after((call) => (isUpdate(call) && (updates += 1) === 1 ? { answer: 500 } : 'pass'));
    const { key } = await relayed.keys.add(principal, openaiKey(), 'r1');
    expect(updates).toBe(2);
    expect(await idsOf(principal)).toEqual([key.id]);
  });

  it.each([429, 503, 403])('that Keycloak does not take (%i) is not insisted on', async (status) => {
    const principal = createPrincipal();
    let refused = 0;
    relay.before((call) => (isUpdate(call) && (refused += 1) > 0 ? { answer: status } : 'pass'));
    expect(await codeOf(relayed.keys.add(principal, openaiKey(), 'r1'))).toBe('keycloak_unavailable');
    expect(refused).toBe(1);
    expect(await idsOf(principal)).toEqual([]);
    expect(await actionsOf(principal.user.id)).toEqual(['key.added', 'key.add_unconfirmed']);
  });

  it('that cannot be read back, since Keycloak died meanwhile, is told as unconfirmed and not lost', async () => {
    const principal = createPrincipal();
    const secret = openaiKey();
    let isDead = false;
    relay.after((call) => {
      if (isUpdate(call)) isDead = true;
      return 'pass';
    });
    relay.before(() => (isDead ? { answer: 502 } : 'pass'));
    expect(await codeOf(relayed.keys.add(principal, secret, 'r1'))).toBe('keycloak_unavailable');
    expect(await actionsOf(principal.user.id)).toEqual(['key.added', 'key.add_unconfirmed']);
    // Whoever tries again after that is told that it is there already.
    expect(await codeOf(direct.keys.add(principal, secret, 'r2'))).toBe('duplicate_key');
    expect(await idsOf(principal)).toHaveLength(1);
  });

  it('leaves everything else in the record as an administrator made it', async () => {
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

describe('a process that is killed in the middle of a write', () => {
  /** Runs a writer until `moment` of its nth update, kills it, and answers the keys that it confirmed. */
  async function killedAt(moment: 'before' | 'after', nth: number, userId: string): Promise<string[]> {
    const confirmed: string[] = [];
    const child = spawn(process.execPath, [fileURLToPath(new URL('writer-process.ts', import.meta.url))], {
      env: { ...process.env, WRITER_OPTIONS: JSON.stringify({ ...options, keycloakUrl: relay.url, userId }) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = once(child, 'exit');
    const lines = createInterface(child.stdout).on('line', (line) => confirmed.push(line));
    const read = once(lines, 'close');
    let updates = 0;
    const isTheOne = (call: { method?: string | undefined }) => {
      if (call.method !== 'PUT' || (updates += 1) !== nth) return false;
      child.kill('SIGKILL');
      return true;
    };
    relay[moment]((call: { method?: string | undefined }) => (isTheOne(call) ? 'hold' : 'pass'));
    const [, signal] = (await exited) as [number | null, string | null];
    await read;
    expect(signal).toBe('SIGKILL');
    return confirmed;
  }

  it('before Keycloak has heard of it leaves the old list', async () => {
    const principal = createPrincipal();
    const confirmed = await killedAt('before', 3, principal.user.id);
    expect(confirmed).toHaveLength(2);
    expect(await idsOf(principal)).toEqual(confirmed);
  });

  it('after Keycloak has done it leaves the new list, and the next writer is not held up', async () => {
    const principal = createPrincipal();
    const confirmed = await killedAt('after', 3, principal.user.id);
    expect(confirmed).toHaveLength(2);
    const listed = await idsOf(principal);
    expect(listed.slice(0, 2)).toEqual(confirmed);
    expect(listed).toHaveLength(3);
    const { key } = await direct.keys.add(principal, openaiKey(), 'r1');
    expect(await idsOf(principal)).toEqual([...listed, key.id]);
  });
});

describe('losing Postgres in the middle of a write', () => {
  it('ends as database_unavailable with the old or the new list, and the next write works', async () => {
    const principal = createPrincipal();
    const { key } = await direct.keys.add(principal, openaiKey(), 'r1');
    const lost = another({ keycloakUrl: relay.url });
    let isCut = false;
    relay.after(async (call) => {
      if (call.method === 'PUT' && !isCut) {
        isCut = true;
        // Locks are listed for the whole server, which other tests use too.
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
