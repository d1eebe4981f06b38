import pg from 'pg';

interface RoleLogin {
  name: string;
  password: string;
}

/** The role through which the app's login gets its rights; migrations grant to it. */
const APP_GROUP = 'ops_center_app';

/**
 * Makes the two logins and the database, and sets what an earlier start may have left undone:
 * - `owner` owns the database and its schema and runs migrations; it may add members to the app's group;
 * - `app` is a member of the group and nothing else: no superuser, owns nothing, creates nothing.
 */
export async function prepareRoles(
  superuserUrl: string,
  database: string,
  logins: { owner: RoleLogin; app: RoleLogin },
): Promise<void> {
  const client = new pg.Client({ connectionString: superuserUrl });
  await client.connect();
  try {
    // A statement that fails is logged with its text, and these hold passwords.
    await client.query('SET log_min_error_statement = panic');
    await ensureRole(client, APP_GROUP, 'NOLOGIN');
    for (const login of [logins.owner, logins.app]) {
      const password = client.escapeLiteral(login.password);
      await ensureRole(client, login.name, `LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD ${password}`);
    }
    await client.query(`GRANT ${APP_GROUP} TO ${logins.app.name}`);
    await client.query(
      `GRANT ${APP_GROUP} TO ${logins.owner.name} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`,
    );
    await ensureDatabase(client, database, logins);
  } finally {
    await client.end();
  }
}

async function ensureRole(client: pg.Client, name: string, options: string): Promise<void> {
  const { rowCount } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [name]);
  await client.query(`${rowCount === 0 ? 'CREATE' : 'ALTER'} ROLE ${name} ${options}`);
}

async function ensureDatabase(
  client: pg.Client,
  name: string,
  logins: { owner: RoleLogin; app: RoleLogin },
): Promise<void> {
  const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [name]);
  if (rowCount === 0) await client.query(`CREATE DATABASE ${name} OWNER ${logins.owner.name}`);
  await client.query(`REVOKE ALL ON DATABASE ${name} FROM PUBLIC`);
  await client.query(`GRANT CONNECT ON DATABASE ${name} TO ${APP_GROUP}`);
}
