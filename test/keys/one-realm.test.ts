import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { setTimeout as delay } from 'node:timers/promises';
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
/** An instance that calls Keycloak through the relay. */
let relayed: Instance;
const instances: Instance[] = [];

beforeAll(async () => {
  realm = await createOneRealm();
  relay = await createRelay(stack.keycloak.url);
  instance = openInstance({});
  relayed = openInstance({ keycloakUrl: relay.url });
}, 60_000);

afterEach(() => {
  relay.passAll();
});

afterAll(async () => {
  await Promise.all(instances.map((each) => each.close()));
  await relay.close();
  await realm.remove();
});

function openInstance(change: Partial<InstanceOptions>): Instance {
  const made = createInstance({ ...realm.options, ...change });
  instances.push(made);
  return made;
}

const openaiKey = () => ({ provider: 'openai', key: randomKey(), label: null, endpoint: null });

async function actionsOf(userId: string): Promise<string[]> {
  const rows = await instance.database.withOwner(`user:${userId}`, (sql) =>
    sql.rows(z.object({ action: z.string() }), 'SELECT action FROM audit_events ORDER BY id'),
  );
  return rows.map((row) => row.action);
}

/** The logged events with this user's vault id. */
function eventsOf(from: Instance, user: RealmUser) {
  const Line = z.object({ event: z.string().optional(), vault_id: z.string().optional(), level: z.number() });
  const lines = from
    .logged()
    .split('\n')
    .filter((line) => line !== '');
  return lines
    .map((line) => Line.loose().parse(JSON.parse(line)))
    .filter((line) => line.vault_id === user.id);
}

async function secretsOf({ id }: RealmUser): Promise<(string | undefined)[]> {
  const pools = await instance.keys.readKeysByProvider(`user:${id}`);
  return (pools.get('openai') ?? []).map((each) => each.decrypt()?.secret);
}

describe('one realm for users and keys', () => {
  it('stores keys with the user and leaves the rest of the user unchanged', async () => {
    const { admin } = realm;
    const { id, principal } = await realm.createUser();
    const before = await admin.users.findOne({ id });
    const key = randomKey();
    await instance.keys.add(principal, { provider: 'openai', key, label: null, endpoint: null }, 'r1');
    const pools = await instance.keys.readKeysByProvider(`user:${id}`);
    expect(pools.get('openai')?.map((each) => each.decrypt()?.secret)).toEqual([key]);

    const during = await admin.users.findOne({ id });
    const { byok_openai: values, ...others } = during?.attributes as Record<string, string[]>;
    expect(values).toHaveLength(1);
    expect({ ...during, attributes: others }).toEqual(before);

    await instance.keys.remove(principal, 'openai', undefined, 'r2');
    expect(await admin.users.findOne({ id })).toEqual(before);
    expect(await actionsOf(id)).toEqual(['key.added', 'key.deleted']);
  });

  it('stores no vault index row for a user without keys', async () => {
    const { id } = await realm.admin.users.create({ username: 'keyless', enabled: true });
    expect(await instance.keys.listKeys(createPrincipal(id))).toEqual([]);
    const owner = `user:${id}` as const;
    const rows = await instance.database.withOwner(owner, (sql) =>
      sql.rows(z.object({}), 'SELECT FROM owners'),
    );
    expect(rows).toEqual([]);
  });

  it('creates no user for an unknown user id', async () => {
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
const isFirstEventQuery = (call: Call) => call.url?.includes('/admin-events') === true;

/** Runs `work` once, before the first matching call is forwarded. */
function justBefore(isMatch: (call: Call) => boolean, work: () => Promise<unknown>): void {
  let isDone = false;
  relay.before(async (call) => {
    if (isDone || !isMatch(call)) return 'pass' as const;
    isDone = true;
    await work();
    return 'pass' as const;
  });
}

/** Everything that an administrator can change in one save of a user. */
const CHANGES = {
  ...{ firstName: 'Augusta', lastName: 'King', email: 'king@example.test' },
  ...{ enabled: false, emailVerified: false, requiredActions: ['UPDATE_PASSWORD'] },
  attributes: { subscription_tier: ['free'], 'a note': ['“two”', 'values'] },
};

describe('a user saved by an administrator during a key write', () => {
  it('keeps what the update can omit: enabled, emailVerified and requiredActions', async () => {
    const user = await realm.createUser();
    justBefore(isUpdate, () => realm.saveUser(user.id, CHANGES));
    await relayed.keys.add(user.principal, openaiKey(), 'r1');
    const { enabled, emailVerified, requiredActions } = await realm.readUser(user.id);
    expect({ enabled, emailVerified, requiredActions }).toEqual({
      enabled: CHANGES.enabled,
      emailVerified: CHANGES.emailVerified,
      requiredActions: CHANGES.requiredActions,
    });
  });

  it('may get back the older tier, names and address, which is logged as an error and audited', async () => {
    const user = await realm.createUser();
    const key = openaiKey();
    justBefore(isUpdate, async () => {
      await realm.saveUser(user.id, CHANGES);
    });
    await relayed.keys.add(user.principal, key, 'r1');
    const [collision, ...others] = eventsOf(relayed, user);
    const savedBy = (await updateEventsOf(user))[1]?.authDetails?.userId;
    expect(collision).toMatchObject({ event: 'vault_write_collision', level: 50, owner: `user:${user.id}` });
    expect(savedBy).toBeDefined();
    expect(collision?.['saved_by']).toEqual([savedBy]);
    expect(others).toEqual([]);
    expect(await actionsOf(user.id)).toEqual(['key.added', 'key.write_collided']);
    expect(await secretsOf(user)).toEqual([key.key]);
  });

  it('loses nothing that was saved before the last read of the write', async () => {
    const user = await realm.createUser();
    const key = openaiKey();
    justBefore(isFirstEventQuery, () => realm.saveUser(user.id, CHANGES));
    await relayed.keys.add(user.principal, key, 'r1');
    const { attributes, ...rest } = await realm.readUser(user.id);
    const { byok_openai: values, ...foreign } = attributes as Record<string, string[]>;
    expect({ ...rest, attributes: foreign }).toMatchObject(CHANGES);
    expect(values).toHaveLength(1);
    expect(await secretsOf(user)).toEqual([key.key]);
    expect(await actionsOf(user.id)).toEqual(['key.added']);
    // The write waits until Keycloak's caches are updated.
    const [written, saved] = await updateEventsOf(user);
    expect((written?.time ?? 0) - (saved?.time ?? 0)).toBeGreaterThan(200);
  });

  it('gets back no key that the administrator removed during the add of another key', async () => {
    const user = await realm.createUser();
    const key = openaiKey();
    await relayed.keys.add(user.principal, openaiKey(), 'r1');
    justBefore(isFirstEventQuery, () => realm.saveUser(user.id, { attributes: { byok_openai: [] } }));
    await relayed.keys.add(user.principal, key, 'r2');
    expect(await secretsOf(user)).toEqual([key.key]);
  });

  it('has the new key and the saved tier even if the administrator saves an older state over the key', async () => {
    const user = await realm.createUser();
    const key = openaiKey();
    const loaded = await realm.readUser(user.id);
    let updates = 0;
    relay.after(async (call) => {
      if (isUpdate(call) && (updates += 1) === 1)
        await realm.saveUser(user.id, { attributes: { subscription_tier: ['enterprise'] } }, loaded);
      return 'pass' as const;
    });
    await relayed.keys.add(user.principal, key, 'r1');
    expect(updates).toBe(2);
    expect((await realm.readUser(user.id)).attributes).toMatchObject({ subscription_tier: ['enterprise'] });
    expect(await secretsOf(user)).toEqual([key.key]);
  });

  it('causes no collision event when the save ended before the write', async () => {
    const user = await realm.createUser();
    await realm.saveUser(user.id, { lastName: 'King' });
    await relayed.keys.add(user.principal, openaiKey(), 'r1');
    expect(eventsOf(relayed, user)).toEqual([]);
    expect(await actionsOf(user.id)).toEqual(['key.added']);
  });
});

describe('a key write to a user', () => {
  it('detects a concurrent change of the profile by the user', async () => {
    const user = await realm.createUser();
    justBefore(isUpdate, async () => {
      const answer = await fetch(`${stack.keycloak.url}/realms/${realm.name}/account`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${(await signIn(user, user.password)).access_token ?? ''}`,
          'content-type': 'application/json',
        },
        body: JSON.stringify({
          ...{ username: user.username, email: `${user.username}@example.test` },
          ...{ firstName: 'Myself', lastName: 'Example' },
        }),
      });
      expect(answer.status).toBe(204);
    });
    await relayed.keys.add(user.principal, openaiKey(), 'r1');
    expect(eventsOf(relayed, user)).toMatchObject([
      { event: 'vault_write_collision', saved_by: ['the person'] },
    ]);
  });

  it('does not end the lock after wrong passwords', async () => {
    const user = await realm.createUser();
    const isLocked = async () => {
      const state: unknown = await realm.admin.attackDetection.findOne({ id: user.id });
      return z.object({ disabled: z.boolean() }).parse(state).disabled;
    };
    for (let count = 0; count < 10 && !(await isLocked()); count += 1) await signIn(user, 'wrong');
    expect(await isLocked()).toBe(true);
    await instance.keys.add(user.principal, openaiKey(), 'r1');
    expect(await isLocked()).toBe(true);
  });

  it('works without the right to view events, and logs that collisions are not detected', async () => {
    const user = await realm.createUser();
    const withoutEvents = openInstance({ client: realm.clientWithoutEvents });
    const key = openaiKey();
    await withoutEvents.keys.add(user.principal, key, 'r1');
    expect(await secretsOf(user)).toEqual([key.key]);
    expect(eventsOf(withoutEvents, user)).toMatchObject([{ event: 'vault_write_unwatched', level: 40 }]);
  });

  it('audits every loss: 50 writes against 50 saves of the tier at random moments', async () => {
    const race = async () => {
      const user = await realm.createUser();
      const added = instance.keys.add(user.principal, openaiKey(), 'r1');
      await delay(Math.random() * 120);
      await realm.saveUser(user.id, { attributes: { subscription_tier: ['free'] } });
      await added;
      const attributes = (await realm.readUser(user.id)).attributes as Record<string, string[]>;
      const isLost = attributes['subscription_tier']?.[0] !== 'free';
      const isAudited = (await actionsOf(user.id)).includes('key.write_collided');
      return { isLost, isAudited };
    };
    const workers = Array.from({ length: 5 }, async () => {
      const results = [];
      for (let count = 0; count < 10; count += 1) results.push(await race());
      return results;
    });
    const results = (await Promise.all(workers)).flat();
    expect(results.filter(({ isLost, isAudited }) => isLost && !isAudited)).toEqual([]);
  }, 60_000);
});

/** Keycloak's admin events for updates of the user, newest first. */
async function updateEventsOf({ id }: RealmUser) {
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
