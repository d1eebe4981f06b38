import type { Environment } from '../config/config.ts';
import { runMigrations } from '../lib/postgres/migrations.ts';
import { readSetting } from './settings.ts';
import { StartError } from '../lib/errors.ts';

/**
 * Runs the pending migrations.
 * @throws StartError if MIGRATION_DATABASE_URL is not set.
 */
export async function migrate(environment: Environment, print: (text: string) => void): Promise<void> {
  const ownerUrl = readSetting(environment, 'MIGRATION_DATABASE_URL');
  if (ownerUrl === undefined) {
    throw new StartError(
      'MIGRATION_DATABASE_URL is not set. Set it to the address with the role that owns the schema.',
    );
  }
  const appUrl = readSetting(environment, 'DATABASE_URL');
  const names = await runMigrations({
    ownerUrl,
    appRole: appUrl === undefined ? undefined : decodeURIComponent(new URL(appUrl).username),
  });
  print(names.length === 0 ? 'The database is up to date.' : `Run: ${names.join(', ')}`);
}
