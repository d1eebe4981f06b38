import { NetworkError } from '@keycloak/keycloak-admin-client';
import { describe, expect, it } from '@jest/globals';
import { repeatOnce } from './support/repeat-once.ts';

/** A client whose requests fail with these statuses, one after the other, and then succeed. */
function failingClient(...statuses: number[]) {
  const find = () => {
    const status = statuses.shift();
    return status === undefined ? Promise.resolve('found') : Promise.reject(failure(status));
  };
  return repeatOnce({ users: { find } });
}

function failure(status: number): NetworkError {
  return new NetworkError('failed', { response: new Response(null, { status }), responseData: null });
}

describe('a request of an admin client', () => {
  it('is repeated once after a 500', async () => {
    expect(await failingClient(500).users.find()).toBe('found');
    await expect(failingClient(500, 500).users.find()).rejects.toThrow('failed');
  });

  it('is not repeated after another error', async () => {
    await expect(failingClient(409).users.find()).rejects.toThrow('failed');
  });
});
