import { describe, expect, it } from '@jest/globals';
import { findDeletedUserId, findAffectedUserId } from '../../../src/lib/keycloak/admin-events.ts';

const event = (operationType: string, resourcePath?: string) => ({
  id: 'e',
  time: 1,
  operationType,
  ...(resourcePath === undefined ? {} : { resourcePath }),
});

describe('an admin event', () => {
  it('touches the user that it is about, or about a part of', () => {
    expect(findAffectedUserId(event('UPDATE', 'users/u1'))).toBe('u1');
    expect(findAffectedUserId(event('ACTION', 'users/u1/reset-password'))).toBe('u1');
    for (const path of ['users', 'users/', 'groups/u1', 'realms/users/u1', undefined]) {
      expect(findAffectedUserId(event('UPDATE', path))).toBeUndefined();
    }
  });

  it('deletes a user only when it is exactly that user that was deleted', () => {
    expect(findDeletedUserId(event('DELETE', 'users/u1'))).toBe('u1');
    expect(findDeletedUserId(event('UPDATE', 'users/u1'))).toBeUndefined();
    for (const path of ['users/u1/groups/g1', 'users/u1/', 'users', 'users/', 'groups/u1', undefined]) {
      expect(findDeletedUserId(event('DELETE', path))).toBeUndefined();
    }
  });
});
