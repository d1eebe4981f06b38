import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { createDeletedUserPoll } from '../../src/identity/keycloak-events.ts';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createKeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';
import { createLog } from '../../src/lib/log.ts';
import { createDatabase } from '../support/database.ts';
import { adminClient, createUser, stack } from '../support/stack.ts';

let database: Database;
/** In the order of the callbacks. Other tests delete users in this realm too. */
const deletedIds: string[] = [];
/** The callbacks for this user fail. */
let failingId: string | undefined;
/** Users whose sign-ins were ended, in the order of the calls. */
const endedIds: string[] = [];
const invalidatedIds: string[] = [];
/** A user whom Keycloak's cache still contains: any lookup that finds nobody finds it. */
let cachedUser: { id: string } | undefined;
let poll: () => Promise<void>;

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  database = openDatabase({ url: appUrl, max: 2, applicationName: 'test', log: createLog('silent') });
  const { url, realm, serviceClient } = stack.keycloak;
  const { id: clientId, secret: clientSecret } = serviceClient;
  const keycloakAdmin = createKeycloakAdmin({ baseUrl: url, realm, clientId, clientSecret });
  poll = createDeletedUserPoll({
    keycloakAdmin: {
      ...keycloakAdmin,
      async call(use) {
        const answer = await keycloakAdmin.call(use);
        return answer === null && cachedUser !== undefined ? (cachedUser as typeof answer) : answer;
      },
    },
    database,
    userCache: {
      findUser: () => Promise.resolve(undefined),
      invalidate: (id) => void invalidatedIds.push(id),
    },
    logout: {
      endUser(userId) {
        endedIds.push(userId);
        return Promise.resolve();
      },
    },
    onUserDeleted(userId) {
      // Before the callback, so that no later request stores anything.
      expect([endedIds.at(-1), invalidatedIds.at(-1)]).toEqual([userId, userId]);
      deletedIds.push(userId);
      if (userId !== failingId) return Promise.resolve();
      return Promise.reject(new Error('the vault is unavailable'));
    },
  });
  await poll();
});
afterAll(async () => {
  await database.close();
});

const countDeletions = (id: string) => deletedIds.filter((each) => each === id).length;

describe('a user deleted by an administrator', () => {
  it('is reported twice, since a request that was authorized before can store something after the first time', async () => {
    const user = await createUser();
    await (await adminClient()).users.del({ id: user.id });
    await poll();
    expect(countDeletions(user.id)).toBe(1);
    await poll();
    await poll();
    expect(countDeletions(user.id)).toBe(2);
  });

  it('is reported again after the callback failed', async () => {
    const user = await createUser();
    await (await adminClient()).users.del({ id: user.id });
    failingId = user.id;
    await expect(poll()).rejects.toThrow('the vault is unavailable');
    failingId = undefined;
    for (let count = 0; count < 3; count += 1) await poll();
    expect(countDeletions(user.id)).toBe(3);
  });

  it('is reported while the callback fails for a user who was deleted after', async () => {
    const [first, last] = [await createUser(), await createUser()];
    const { users } = await adminClient();
    await users.del({ id: first.id });
    await users.del({ id: last.id });
    failingId = last.id;
    await expect(poll()).rejects.toThrow('the vault is unavailable');
    failingId = undefined;
    expect(countDeletions(first.id)).toBe(1);
  });

  it('is reported in a later poll if Keycloak’s cache still contained it in the first one', async () => {
    const user = await createUser();
    await (await adminClient()).users.del({ id: user.id });
    cachedUser = { id: user.id };
    await poll();
    expect(countDeletions(user.id)).toBe(0);
    cachedUser = undefined;
    for (let count = 0; count < 3; count += 1) await poll();
    expect(countDeletions(user.id)).toBe(2);
  });
});

describe('a user is not reported', () => {
  it('if it was disabled', async () => {
    const user = await createUser();
    await (await adminClient()).users.update({ id: user.id }, { enabled: false });
    await poll();
    expect(countDeletions(user.id)).toBe(0);
  });

  it('if a group of the user was deleted', async () => {
    const user = await createUser();
    const admin = await adminClient();
    const group = await admin.groups.create({ name: `group-${randomBytes(6).toString('hex')}` });
    await admin.users.addToGroup({ id: user.id, groupId: group.id });
    await admin.users.delFromGroup({ id: user.id, groupId: group.id });
    await admin.groups.del({ id: group.id });
    await poll();
    expect(countDeletions(user.id)).toBe(0);
  });

  it('if it was deleted and imported again with the same id', async () => {
    const user = await createUser();
    const admin = await adminClient();
    await admin.users.del({ id: user.id });
    await admin.realms.partialImport({
      realm: stack.keycloak.realm,
      rep: {
        ifResourceExists: 'FAIL',
        users: [
          {
            id: user.id,
            username: user.username,
            email: user.email,
            firstName: 'Test',
            lastName: 'User',
            enabled: true,
            attributes: { subscription_tier: ['free'] },
          },
        ],
      } as never,
    });
    expect((await admin.users.findOne({ id: user.id }))?.id).toBe(user.id);
    await poll();
    expect(countDeletions(user.id)).toBe(0);
  });
});
