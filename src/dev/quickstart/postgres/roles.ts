import pg from 'pg';

interface RoleLogin {
  name: string;
  password: string;
}

/** Role that gives the app's login its privileges. Migrations grant privileges to it. */
const APP_GROUP = 'ops_center_app';

/**
 * Creates the two logins and the database. Idempotent, so it also completes an interrupted start:
 * - `owner` owns the database and its schema, runs migrations, and can add members to the app's group;
 * - `app` is only a member of the group: it is no superuser, owns nothing and can create nothing.
 */
export async function prepareRoles(
  superuserUrl: string,
  database: string,
  logins: { owner: RoleLogin; app: RoleLogin },
): Promise<void> {
  const client = new pg.Client({ connectionString: superuserUrl });
  await client.connect();
  try {
    // Postgres logs the text of failed statements, and these contain passwords.
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
