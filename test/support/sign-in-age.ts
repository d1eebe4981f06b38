import pg from 'pg';
import type { TestApp } from './app.ts';

/** Makes the sessions of a user look as if the password was entered so long ago; null: as if that was not known. */
export async function setSignInAge(
  { ownerDatabaseUrl }: Pick<TestApp, 'ownerDatabaseUrl'>,
  userId: string,
  minutes: number | null,
): Promise<void> {
  const client = new pg.Client({ connectionString: ownerDatabaseUrl });
  await client.connect();
  const authenticatedAtMs = minutes === null ? null : Date.now() - minutes * 60_000;
  try {
    await client.query('UPDATE sessions SET sess = sess || $2::jsonb WHERE owner = $1', [
      `user:${userId}`,
      JSON.stringify({ authenticatedAtMs }),
    ]);
  } finally {
    await client.end();
  }
}
