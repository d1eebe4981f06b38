import { describe, expect, test } from '@jest/globals';
import { getUserId, OwnerText, parseOwner, userOwner } from '../../src/lib/owner.ts';

describe('owner', () => {
  test('is the prefix of its kind and an id of Keycloak', () => {
    expect(userOwner('u1')).toBe('user:u1');
    expect(parseOwner('user:u1')).toEqual({ owner: 'user:u1', kind: 'user', id: 'u1' });
    expect(parseOwner('org:o1')).toEqual({ owner: 'org:o1', kind: 'organization', id: 'o1' });
  });

  test.each(['f:ldap:ada', 'f:ldap:Ada Lovelace', 'f:ldap:ada\n', 'é'])(
    'keeps %j, as a user id can be',
    (id) => {
      expect(getUserId(userOwner(id))).toBe(id);
      expect(OwnerText.parse(userOwner(id))).toBe(`user:${id}`);
    },
  );

  test.each(['', 'user:', 'user', 'u1', 'USER:u1', ' user:u1', 'group:g1'])(
    'does not read %j as an owner',
    (text) => {
      expect(parseOwner(text)).toBeUndefined();
      expect(OwnerText.safeParse(text).success).toBe(false);
    },
  );

  test('refuses the user id of an organization', () => {
    expect(() => getUserId('org:o1')).toThrow('org:o1 is not a user');
  });
});
