import { describe, expect, it } from '@jest/globals';
import { findDeletedUserId, findAffectedUserId } from '../../../src/lib/keycloak/admin-events.ts';

const event = (operationType: string, resourcePath?: string) => ({
  id: 'e',
  time: 1,
  operationType,
  ...(resourcePath === undefined ? {} : { resourcePath }),
});

describe('an admin event', () => {
  it('affects the user that it names, or whose sub-resource it names', () => {
    expect(findAffectedUserId(event('UPDATE', 'users/u1'))).toBe('u1');
    expect(findAffectedUserId(event('ACTION', 'users/u1/reset-password'))).toBe('u1');
    for (const path of ['users', 'users/', 'groups/u1', 'realms/users/u1', undefined]) {
      expect(findAffectedUserId(event('UPDATE', path))).toBeUndefined();
    }
  });

  it('reports a deleted user only when the user itself was deleted', () => {
    expect(findDeletedUserId(event('DELETE', 'users/u1'))).toBe('u1');
    expect(findDeletedUserId(event('UPDATE', 'users/u1'))).toBeUndefined();
    for (const path of ['users/u1/groups/g1', 'users/u1/', 'users', 'users/', 'groups/u1', undefined]) {
      expect(findDeletedUserId(event('DELETE', path))).toBeUndefined();
    }
  });
});
