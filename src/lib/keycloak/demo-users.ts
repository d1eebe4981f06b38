import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';

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

const DEMO_FILE = path.join(import.meta.dirname, '..', '..', '..', 'keycloak', 'demo.json');

/** Demo users and their organization. Local mode adds them; deployed mode refuses to start while they exist. */
export async function readDemo(): Promise<Demo> {
  return Demo.parse(JSON.parse(await readFile(DEMO_FILE, 'utf8')));
}
