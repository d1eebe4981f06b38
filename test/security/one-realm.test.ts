import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { adminClient } from '../support/stack.ts';
import { createScenario, statusOf, type Scenario } from './scenario.ts';

describe('with one realm for people and keys', () => {
  let scene: Scenario;
  beforeAll(async () => {
    scene = await createScenario('one realm for people and keys');
  }, 120_000);
  afterAll(() => scene.stop());

  it('key writes change nothing else of a person: what administrators save between them stands', async () => {
    const person = await scene.createUserWithKey();
    const { session } = person;
    const admin = await adminClient(scene.realm);
    const path = `/api/v1/byok/keys/openai/${person.keyId}`;
    const writes = [
      () => scene.app.call(path, { method: 'PATCH', session, json: { label: 'another label' } }),
      () => scene.app.call(path, { method: 'PATCH', session, json: { enabled: false } }),
      () => scene.app.call('/api/v1/byok/keys/openai', { method: 'DELETE', session }),
    ];
    for (const [round, write] of writes.entries()) {
      const { userProfileMetadata: _metadata, ...found } =
        (await admin.users.findOne({ id: person.user.id })) ?? {};
      const saved = {
        ...found,
        ...{ firstName: `First ${round}`, lastName: `Last ${round}`, email: `${round}-${person.user.email}` },
        attributes: {
          ...found.attributes,
          subscription_tier: ['professional'],
          organization_admin: ['demo', `other-${round}`],
          'a note of the administrator': [`“${round}”`, 'two'],
        },
      };
      await admin.users.update({ id: person.user.id }, saved);
      const before = await admin.users.findOne({ id: person.user.id });
      expect(before).toMatchObject({ lastName: `Last ${round}`, attributes: saved.attributes });
      expect(await statusOf(write())).toBe(200);
      const after = await admin.users.findOne({ id: person.user.id });
      expect(withoutKeys(after?.attributes)).toEqual(withoutKeys(before?.attributes));
      expect({ ...after, attributes: null }).toEqual({ ...before, attributes: null });
    }
    expect((await scene.readRecord(person.user)).attributes).not.toHaveProperty('byok_openai');
  });
});

function withoutKeys(attributes: Record<string, string[]> | undefined): Record<string, string[]> {
  const others = Object.entries(attributes ?? {}).filter(([name]) => !name.startsWith('byok_'));
  return Object.fromEntries(others.map(([name, values]) => [name, [...values].sort()]));
}
