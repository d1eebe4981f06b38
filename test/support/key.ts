import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { TestApp } from './app.ts';
import { evidence } from './evidence.ts';

/** A random key in OpenAI's format. */
export function openAiKey(): string {
  const key = `sk-${randomBytes(24).toString('hex')}`;
  evidence.registerSecret('provider key', key);
  return key;
}

const Added = z.object({ key: z.object({ id: z.string() }) });

/** Adds a key through the API. @returns its id. */
export async function addKey(
  app: TestApp,
  session: string,
  key: { provider: string; key: string; label?: string; endpoint?: string },
): Promise<string> {
  evidence.registerSecret('provider key', key.key);
  const response = await app.call('/api/v1/byok/keys/add', { method: 'POST', session, json: key });
  if (response.status !== 201) throw new Error(`adding a key: ${response.status} ${await response.text()}`);
  return Added.parse(await response.json()).key.id;
}
