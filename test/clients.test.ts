import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Config } from '../src/config/config.ts';
import { createKeyAdminContext } from '../src/cli/context.ts';
import { createLog } from '../src/lib/log.ts';
import { startServer } from '../src/server.ts';
import { startApp, type TestApp } from './support/app.ts';
import { openServers } from './support/servers-direct.ts';

let app: TestApp;

beforeAll(async () => {
  app = await startApp();
});
afterAll(() => app.stop());

const starts: [string, (config: Config) => Promise<unknown>][] = [
  ['the app', (config) => startServer(config, { log: createLog('silent') })],
  [
    'a command',
    async (config) => {
      const keyAdmin = createKeyAdminContext(config, createLog('silent'));
      await keyAdmin.start().finally(() => keyAdmin.close());
    },
  ],
];

describe.each(starts)('%s does not start', (_name, start) => {
  it('with the role of the schema owner, to which row-level security does not apply', async () => {
    await expect(start({ ...app.config, databaseUrl: app.ownerDatabaseUrl })).rejects.toMatchObject({
      name: 'UnfitError',
      message: expect.stringMatching(
        /audit_events, idempotency_keys, onboarding, owners, personal_tokens, provider_key_facts, run_events, runs, sessions, stored_responses, usage_days, usage_refusals, usage_requests, user_execution_servers: .*MIGRATION_DATABASE_URL/,
      ),
    });
  });

  it('when row-level security is disabled for a table with owners', async () => {
    const direct = await openServers(app);
    await direct.sql('ALTER TABLE user_execution_servers DISABLE ROW LEVEL SECURITY');
    try {
      await expect(start(app.config)).rejects.toMatchObject({
        name: 'UnfitError',
        message: expect.stringMatching(/ in user_execution_servers: /),
      });
    } finally {
      await direct.sql('ALTER TABLE user_execution_servers ENABLE ROW LEVEL SECURITY');
      await direct.close();
    }
  });
});
