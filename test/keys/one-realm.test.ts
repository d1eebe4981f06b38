import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';
import { stack } from '../support/stack.ts';
import {
  createInstance,
  createPrincipal,
  randomKey,
  type Instance,
  type InstanceOptions,
} from './instance.ts';
import { createRelay, type Relay } from './keycloak-relay.ts';
import { createOneRealm, type OneRealm, type RealmUser } from './one-realm.ts';

let realm: OneRealm;
let relay: Relay;
let instance: Instance;
/** An instance whose calls to Keycloak go through the relay. */
let relayed: Instance;
const opened: Instance[] = [];

beforeAll(async () => {
  realm = await createOneRealm();
  relay = await createRelay(stack.keycloak.url);
  instance = another({});
  relayed = another({ keycloakUrl: relay.url });
}, 60_000);

afterEach(() => {
  relay.passAll();
});

afterAll(async () => {
  await Promise.all(opened.map((each) => each.close()));
  await relay.close();
  await realm.remove();
});

function another(change: Partial<InstanceOptions>): Instance {
  const made = createInstance({ ...realm.options, ...change });
  opened.push(made);
  return made;
}

const openaiKey = () => ({ provider: 'openai', key: randomKey(), label: null, endpoint: null });

async function actionsOf(userId: string): Promise<string[]> {
  const rows = await instance.database.withOwner(`user:${userId}`, (sql) =>
    sql.rows(z.object({ action: z.string() }), 'SELECT action FROM audit_events ORDER BY id'),
  );
  return rows.map((row) => row.action);
}

/** What the log says of one person's writes. */
function eventsOf(from: Instance, person: RealmUser) {
  const Line = z.object({ event: z.string().optional(), vault_id: z.string().optional(), level: z.number() });
  const lines = from
    .logged()
    .split('\n')
    .filter((line) => line !== '');
  return lines
    .map((line) => Line.loose().parse(JSON.parse(line)))
    .filter((line) => line.vault_id === person.id);
}

async function secretsOf({ id }: RealmUser): Promise<(string | undefined)[]> {
  const pools = await instance.keys.readPools(`user:${id}`);
  return (pools.get('openai') ?? []).map((each) => each.decrypt()?.secret);
}

describe('one realm for people and keys', () => {
  it("keeps keys with the person's own user and leaves the rest of it as it was", async () => {
    const { admin } = realm;
    const { id, principal } = await realm.createUser();
    const before = await admin.users.findOne({ id });
    const key = randomKey();
    await instance.keys.add(principal, { provider: 'openai', key, label: null, endpoint: null }, 'r1');
    const pools = await instance.keys.readPools(`user:${id}`);
    expect(pools.get('openai')?.map((each) => each.decrypt()?.secret)).toEqual([key]);

    const during = await admin.users.findOne({ id });
    const { byok_openai: values, ...others } = during?.attributes as Record<string, string[]>;
    expect(values).toHaveLength(1);
    expect({ ...during, attributes: others }).toEqual(before);

    await instance.keys.remove(principal, 'openai', undefined, 'r2');
    expect(await admin.users.findOne({ id })).toEqual(before);
    expect(await actionsOf(id)).toEqual(['key.added', 'key.deleted']);
  });

  it('counts nobody as an owner of a record who never added a key', async () => {
    const { id } = await realm.admin.users.create({ username: 'keyless', enabled: true });
    expect(await instance.keys.listKeys(createPrincipal(id).user)).toEqual([]);
    const owner = `user:${id}` as const;
    const rows = await instance.database.withOwner(owner, (sql) =>
      sql.rows(z.object({}), 'SELECT FROM owners'),
    );
    expect(rows).toEqual([]);
  });

  it('makes no user for a person who is not there', async () => {
    const principal = createPrincipal();
    const add = instance.keys.add(
      principal,
      { provider: 'openai', key: randomKey(), label: null, endpoint: null },
      'r1',
    );
    await expect(add).rejects.toMatchObject({ code: 'keycloak_unavailable' });
    expect(await realm.admin.users.find({ search: principal.user.id })).toEqual([]);
  });
});

type Call = Parameters<Parameters<Relay['before']>[0]>[0];
const isUpdate = (call: Call) => call.method === 'PUT' && call.url?.includes('/users/') === true;
const isFirstLook = (call: Call) => call.url?.includes('/admin-events') === true;

/** Has `work` done once, when the first such call has come and before it is passed on. */
function justBefore(isMeant: (call: Call) => boolean, work: () => Promise<unknown>): void {
  let isDone = false;
  relay.before(async (call) => {
    if (isDone || !isMeant(call)) return 'pass' as const;
    isDone = true;
    await work();
    return 'pass' as const;
  });
}

/** All that an administrator can change at a person at once. */
const CHANGES = {
  ...{ firstName: 'Augusta', lastName: 'King', email: 'king@example.test' },
  ...{ enabled: false, emailVerified: false, requiredActions: ['UPDATE_PASSWORD'] },
  attributes: { subscription_tier: ['free'], 'a note': ['“two”', 'values'] },
};

describe('a person whom an administrator saves while a key is written', () => {
  it('keeps all of that which the update can leave out: disabled, unverified, with something to do', async () => {
    const person = await realm.createUser();
    justBefore(isUpdate, () => realm.saveUser(person.id, CHANGES));
    await relayed.keys.add(person.principal, openaiKey(), 'r1');
    const { enabled, emailVerified, requiredActions } = await realm.readUser(person.id);
    const { enabled: off, emailVerified: doubted, requiredActions: todo } = CHANGES;
    expect({ enabled, emailVerified, requiredActions }).toEqual({
      ...{ enabled: off, emailVerified: doubted, requiredActions: todo },
    });
  });

  it('may get back the older tier, names and address, and that is told: loudly, and in the audit trail', async () => {
    const person = await realm.createUser();
    const key = openaiKey();
    justBefore(isUpdate, async () => {
      await realm.saveUser(person.id, CHANGES);
    });
    await relayed.keys.add(person.principal, key, 'r1');
    const [told, ...others] = eventsOf(relayed, person);
    const savedBy = (await savesOf(person))[1]?.authDetails?.userId;
    expect(told).toMatchObject({ event: 'vault_write_collision', level: 50, owner: `user:${person.id}` });
    expect(savedBy).toBeDefined();
    expect(told?.['saved_by']).toEqual([savedBy]);
    expect(others).toEqual([]);
    expect(await actionsOf(person.id)).toEqual(['key.added', 'key.write_collided']);
    expect(await secretsOf(person)).toEqual([key.key]);
  });

  it('loses nothing of what was saved before the write read the person for the last time', async () => {
    const person = await realm.createUser();
    const key = openaiKey();
    justBefore(isFirstLook, () => realm.saveUser(person.id, CHANGES));
    await relayed.keys.add(person.principal, key, 'r1');
    const { attributes, ...rest } = await realm.readUser(person.id);
    const { byok_openai: values, ...foreign } = attributes as Record<string, string[]>;
    expect({ ...rest, attributes: foreign }).toMatchObject(CHANGES);
    expect(values).toHaveLength(1);
    expect(await secretsOf(person)).toEqual([key.key]);
    expect(await actionsOf(person.id)).toEqual(['key.added']);
    // Keycloak's caches had the time to learn of it.
    const [written, saved] = await savesOf(person);
    expect((written?.time ?? 0) - (saved?.time ?? 0)).toBeGreaterThan(200);
  });

  it('gets back no key that the administrator removed while another one was added', async () => {
    const person = await realm.createUser();
    const key = openaiKey();
    await relayed.keys.add(person.principal, openaiKey(), 'r1');
    justBefore(isFirstLook, () => realm.saveUser(person.id, { attributes: { byok_openai: [] } }));
    await relayed.keys.add(person.principal, key, 'r2');
    expect(await secretsOf(person)).toEqual([key.key]);
  });

  it('has the new key also when the administrator saves an older state over it, and the tier so saved', async () => {
    const person = await realm.createUser();
    const key = openaiKey();
    const loaded = await realm.readUser(person.id);
    let updates = 0;
    relay.after(async (call) => {
      if (isUpdate(call) && (updates += 1) === 1)
        await realm.saveUser(person.id, { attributes: { subscription_tier: ['enterprise'] } }, loaded);
      return 'pass' as const;
    });
    await relayed.keys.add(person.principal, key, 'r1');
    expect(updates).toBe(2);
    expect((await realm.readUser(person.id)).attributes).toMatchObject({ subscription_tier: ['enterprise'] });
    expect(await secretsOf(person)).toEqual([key.key]);
  });

  it('is spoken of in no alarm when the save was over before', async () => {
    const person = await realm.createUser();
    await realm.saveUser(person.id, { lastName: 'King' });
    await relayed.keys.add(person.principal, openaiKey(), 'r1');
    expect(eventsOf(relayed, person)).toEqual([]);
    expect(await actionsOf(person.id)).toEqual(['key.added']);
  });
});

describe('a key write to a person', () => {
  it('tells when the person changed the own profile at the same moment', async () => {
    const person = await realm.createUser();
    justBefore(isUpdate, async () => {
      const answer = await fetch(`${stack.keycloak.url}/realms/${realm.name}/account`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${(await signIn(person, person.password)).access_token ?? ''}`,
          'content-type': 'application/json',
        },
        body: JSON.stringify({
          ...{ username: person.username, email: `${person.username}@example.test` },
          ...{ firstName: 'Myself', lastName: 'Example' },
        }),
      });
      expect(answer.status).toBe(204);
    });
    await relayed.keys.add(person.principal, openaiKey(), 'r1');
    expect(eventsOf(relayed, person)).toMatchObject([
      { event: 'vault_write_collision', saved_by: ['the person'] },
    ]);
  });

  it('does not lift the lock that follows wrong passwords', async () => {
    const person = await realm.createUser();
    const isLocked = async () => {
      const state: unknown = await realm.admin.attackDetection.findOne({ id: person.id });
      return z.object({ disabled: z.boolean() }).parse(state).disabled;
    };
    for (let count = 0; count < 10 && !(await isLocked()); count += 1) await signIn(person, 'wrong');
    expect(await isLocked()).toBe(true);
    await instance.keys.add(person.principal, openaiKey(), 'r1');
    expect(await isLocked()).toBe(true);
  });

  it('works without the right to see events, and says that nobody watches', async () => {
    const person = await realm.createUser();
    const blind = another({ client: realm.clientWithoutEvents });
    const key = openaiKey();
    await blind.keys.add(person.principal, key, 'r1');
    expect(await secretsOf(person)).toEqual([key.key]);
    expect(eventsOf(blind, person)).toMatchObject([{ event: 'vault_write_unwatched', level: 40 }]);
  });

  it('leaves no loss untold: 50 writes against 50 saves of the tier at random moments', async () => {
    const race = async () => {
      const person = await realm.createUser();
      const added = instance.keys.add(person.principal, openaiKey(), 'r1');
      await pause(Math.random() * 120);
      await realm.saveUser(person.id, { attributes: { subscription_tier: ['free'] } });
      await added;
      const attributes = (await realm.readUser(person.id)).attributes as Record<string, string[]>;
      const isLost = attributes['subscription_tier']?.[0] !== 'free';
      const isTold = (await actionsOf(person.id)).includes('key.write_collided');
      return { isLost, isTold };
    };
    const lanes = Array.from({ length: 5 }, async () => {
      const seen = [];
      for (let count = 0; count < 10; count += 1) seen.push(await race());
      return seen;
    });
    const seen = (await Promise.all(lanes)).flat();
    expect(seen.filter(({ isLost, isTold }) => isLost && !isTold)).toEqual([]);
  }, 60_000);
});

/** Keycloak's events of them, newest first. */
async function savesOf({ id }: RealmUser) {
  return realm.admin.realms.findAdminEvents({
    ...{ realm: realm.name, resourcePath: `users/${id}`, operationTypes: 'UPDATE' },
  });
}

async function signIn({ username }: RealmUser, password: string): Promise<{ access_token?: string }> {
  const url = `${stack.keycloak.url}/realms/${realm.name}/protocol/openid-connect/token`;
  const answer = await fetch(url, {
    method: 'POST',
    body: new URLSearchParams({
      ...{ grant_type: 'password', client_id: realm.signInClient, scope: 'openid' },
      ...{ username, password },
    }),
  });
  return (await answer.json()) as { access_token?: string };
}
