import { describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { createDatabase } from '../../support/database.ts';
import { adminClient, createUser, createWebClient } from '../../support/stack.ts';

describe('the test stack', () => {
  it('creates a separate migrated database for each caller', async () => {
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

  it('creates users with the requested tier', async () => {
    const user = await createUser({ tier: 'starter' });
    const admin = await adminClient();
    const found = await admin.users.findOne({ id: user.id });
    expect(found?.attributes).toEqual({ subscription_tier: ['starter'] });
  });

  it('copies the web client with other addresses', async () => {
    const { id } = await createWebClient('http://localhost:4321');
    const admin = await adminClient();
    const [client] = await admin.clients.find({ clientId: id });
    expect(client?.redirectUris).toEqual(['http://localhost:4321/auth/callback']);
    expect(client?.protocolMappers).toHaveLength(1);
  });
});
