import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { createError, createOk, type Finding } from './finding.ts';

const Demo = z.object({
  users: z.array(
    z.looseObject({
      username: z.string(),
      email: z.string(),
      attributes: z.object({ subscription_tier: z.tuple([z.string()]) }),
    }),
  ),
  organizations: z.array(
    z.looseObject({
      name: z.string(),
      alias: z.string(),
      members: z.array(z.object({ username: z.string() })),
    }),
  ),
});

/** Content of `keycloak/demo.json`. */
export type Demo = z.infer<typeof Demo>;

const DEMO_FILE = path.join(import.meta.dirname, '..', '..', 'keycloak', 'demo.json');

/** Demo users and their organization. Local mode adds them; deployed mode refuses to start while they exist. */
export async function readDemo(): Promise<Demo> {
  return Demo.parse(JSON.parse(await readFile(DEMO_FILE, 'utf8')));
}

/** Reports demo users, because their password is public. */
export async function checkDemoUsers(admin: KeycloakAdmin): Promise<Finding[]> {
  const check = `demo users in realm ${admin.realm}`;
  const { users } = await readDemo();
  const present = await Promise.all(
    users.map(async ({ username, email }) => {
      const found = await admin.call((client) =>
        client.users.find({ realm: admin.realm, username, email, exact: true, briefRepresentation: true }),
      );
      return found.length > 0 ? [username] : [];
    }),
  );
  const names = present.flat();
  if (names.length === 0) return [createOk(check, 'none')];
  return [
    createError(
      check,
      `${names.join(', ')} can sign in with a public password`,
      `Users: delete ${names.join(', ')}`,
    ),
  ];
}
