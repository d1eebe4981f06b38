import { randomBytes } from 'node:crypto';
import type { Headers } from 'undici';
import { z } from 'zod';
import { sendAsUser, type DemoSession } from './session.ts';

/** The session is of a user with tier Starter or higher. */
export interface DemoOptions extends DemoSession {
  username: string;
  print: (text: string) => void;
}

const MAX_SHOWN_EVENTS = 4;
const ROUTING_HEADERS = ['x-ops-provider', 'x-ops-model', 'x-ops-key-scope', 'x-ops-key-id', 'x-ops-reason'];
const AddKeyResponse = z.object({ key: z.object({ id: z.string() }) });
const QUESTION = { role: 'user', content: 'Who pays for this answer?' };

/**
 * Runs the main use case on a running stack: chat, add a key, chat with it (with and without streaming), delete the key.
 * Prints each request with its response and the payer.
 * @throws Error if a request fails or the payer is not the expected one.
 */
export async function runDemo(options: DemoOptions): Promise<void> {
  const { print } = options;
  const call = createCaller(options);
  const chat = async (title: string, stream: boolean): Promise<Payer> => {
    const body = { model: 'demo', stream, messages: [QUESTION] };
    const { headers } = await call(title, 'POST', '/v1/chat/completions', body);
    const payer = { scope: headers.get('x-ops-key-scope'), keyId: headers.get('x-ops-key-id') };
    print(
      `=> ${payer.scope === 'personal' ? `My own key ${String(payer.keyId)} paid.` : 'The system paid.'}\n`,
    );
    return payer;
  };
  print(`Signed in as "${options.username}" through Keycloak.\n`);
  await call('Who am I?', 'GET', '/api/v1/me');
  await call('Which key would serve a request?', 'GET', '/api/v1/byok/route?model=demo');
  const before = await chat('Chat. Who pays?', false);
  const added = await call('Add a key.', 'POST', '/api/v1/byok/keys/add', {
    provider: 'demo',
    key: `demo-${randomBytes(12).toString('hex')}`,
    label: 'Created by npm run demo',
  });
  const { key } = AddKeyResponse.parse(JSON.parse(added.text));
  try {
    await call('Which key would serve a request now?', 'GET', '/api/v1/byok/route?model=demo');
    for (const stream of [false, true]) {
      const payer = await chat(stream ? 'The same, streamed.' : 'Chat again. Who pays now?', stream);
      // If the user already had keys, requests rotate over all of them. Otherwise the new key must pay.
      const isExpected =
        payer.scope === 'personal' && (before.scope === 'personal' || payer.keyId === key.id);
      if (!isExpected) throw new Error('The request was not paid by the new key.');
    }
  } finally {
    await call('Delete the key.', 'DELETE', `/api/v1/byok/keys/demo?key_id=${key.id}`);
  }
}

interface Payer {
  scope: string | null;
  keyId: string | null;
}

function createCaller({ print, ...session }: DemoOptions) {
  return async (
    title: string,
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ text: string; headers: Headers }> => {
    print(`# ${title}`);
    print(`${method} ${session.appUrl}${path}${body === undefined ? '' : `\n${JSON.stringify(body)}`}`);
    const response = await sendAsUser(session, method, path, body);
    const text = await response.text();
    print(`-> ${response.status}`);
    for (const name of ROUTING_HEADERS) {
      const value = response.headers.get(name);
      if (value !== null) print(`${name}: ${value}`);
    }
    print(`${abbreviate(text)}\n`);
    if (!response.ok) throw new Error(`${method} ${path} responded with status ${response.status}`);
    return { text, headers: response.headers };
  };
}

/** Shortens a long stream to its first and last two events and the number of events between. */
function abbreviate(text: string): string {
  const events = text.trim().split('\n\n');
  if (!text.startsWith('data:') || events.length <= MAX_SHOWN_EVENTS) return text.trim();
  const omitted = events.length - MAX_SHOWN_EVENTS;
  return [...events.slice(0, 2), `... ${omitted} more events ...`, ...events.slice(-2)].join('\n\n');
}
