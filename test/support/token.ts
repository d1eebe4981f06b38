import { z } from 'zod';
import type { TestApp } from './app.ts';
import { evidence } from './evidence.ts';

const Created = z.object({ id: z.string(), token: z.string() });
export type CreatedToken = z.output<typeof Created>;

/** Creates a personal token through the API. By default it has the scope `chat`. */
export async function createToken(
  app: TestApp,
  session: string,
  body: Record<string, unknown> = {},
): Promise<CreatedToken> {
  const json = { name: 'A test', scopes: ['chat'], ...body };
  const response = await app.call('/api/v1/tokens', { method: 'POST', session, json });
  if (response.status !== 201)
    throw new Error(`creating a token: ${response.status} ${await response.text()}`);
  const created = Created.parse(await response.json());
  evidence.registerSecret('credential of a request', created.token);
  return created;
}

/** The header with which an OpenAI SDK sends a token. */
export const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
