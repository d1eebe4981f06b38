import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { adminClient } from '../support/stack.ts';
import { createScenario, statusOf, type Scenario } from './scenario.ts';

describe('with one realm for users and keys', () => {
  let scenario: Scenario;
  beforeAll(async () => {
    scenario = await createScenario('one realm for users and keys');
  }, 120_000);
  afterAll(() => scenario.stop());

  it('key writes keep the rest of the user, also what administrators save between the writes', async () => {
    const owner = await scenario.createUserWithKey();
    const { session } = owner;
    const admin = await adminClient(scenario.realm);
    const path = `/api/v1/byok/keys/openai/${owner.keyId}`;
    const writes = [
      () => scenario.app.call(path, { method: 'PATCH', session, json: { label: 'another label' } }),
      () => scenario.app.call(path, { method: 'PATCH', session, json: { enabled: false } }),
      () => scenario.app.call('/api/v1/byok/keys/openai', { method: 'DELETE', session }),
    ];
    for (const [round, write] of writes.entries()) {
      const { userProfileMetadata: _metadata, ...found } =
        (await admin.users.findOne({ id: owner.user.id })) ?? {};
      const saved = {
        ...found,
        ...{ firstName: `First ${round}`, lastName: `Last ${round}`, email: `${round}-${owner.user.email}` },
        attributes: {
          ...found.attributes,
          subscription_tier: ['professional'],
          organization_admin: ['demo', `other-${round}`],
          'a note of the administrator': [`“${round}”`, 'two'],
        },
      };
      await admin.users.update({ id: owner.user.id }, saved);
      const before = await admin.users.findOne({ id: owner.user.id });
      expect(before).toMatchObject({ lastName: `Last ${round}`, attributes: saved.attributes });
      expect(await statusOf(write())).toBe(200);
      const after = await admin.users.findOne({ id: owner.user.id });
      expect(withoutKeys(after?.attributes)).toEqual(withoutKeys(before?.attributes));
      expect({ ...after, attributes: null }).toEqual({ ...before, attributes: null });
    }
    expect((await scenario.readRecord(owner.user)).attributes).not.toHaveProperty('byok_openai');
  });
});

function withoutKeys(attributes: Record<string, string[]> | undefined): Record<string, string[]> {
  const others = Object.entries(attributes ?? {}).filter(([name]) => !name.startsWith('byok_'));
  return Object.fromEntries(others.map(([name, values]) => [name, [...values].sort()]));
}
