import { describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { adminClient, createDatabase, createUser, createWebClient } from '../../support/stack.ts';

describe('the test stack', () => {
  it('gives each caller a migrated database of its own', async () => {
    const { appUrl } = await createDatabase();
    const client = new pg.Client({ connectionString: appUrl });
    await client.connect();
    try {
      const { rows } = await client.query('SELECT name FROM schema_migrations');
      expect(rows.length).toBeGreaterThan(0);
    } finally {
      await client.end();
    }
  });

  it('makes users with the tier asked for', async () => {
    const user = await createUser({ tier: 'starter' });
    const admin = await adminClient();
    const found = await admin.users.findOne({ id: user.id });
    expect(found?.attributes).toEqual({ subscription_tier: ['starter'] });
  });

  it('copies the web client with addresses of its own', async () => {
    const { id } = await createWebClient('http://localhost:4321');
    const admin = await adminClient();
    const [client] = await admin.clients.find({ clientId: id });
    expect(client?.redirectUris).toEqual(['http://localhost:4321/auth/callback']);
    expect(client?.protocolMappers).toHaveLength(1);
  });
});
