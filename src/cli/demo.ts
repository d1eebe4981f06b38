import { randomBytes } from 'node:crypto';
import { fetch } from 'undici';
import { z } from 'zod';

export interface DemoOptions {
  appUrl: string;
  cookieName: string;
  /** The session of a user of tier Starter or higher. */
  session: string;
  print: (text: string) => void;
}

/** Of a stream, so many events are printed. */
const SHOWN_EVENTS = 4;
const RECEIPT = ['x-ops-provider', 'x-ops-model', 'x-ops-key-scope', 'x-ops-key-id', 'x-ops-reason'];
const Added = z.object({ key: z.object({ id: z.string() }) });
const QUESTION = { role: 'user', content: 'Who pays for this answer?' };

/**
 * Walks the main job against a running stack, printing each call with its answer: chat on the system
 * default, add a key, chat on that key (whole and streamed), take the key away again.
 * @throws Error when a call fails.
 */
export async function walkDemo(options: DemoOptions): Promise<void> {
  const call = caller(options);
  options.print('Signed in as "starter" through Keycloak.\n');
  await call('Who am I?', 'GET', '/api/v1/me');
  await call('Which key would answer?', 'GET', '/api/v1/byok/route?model=demo');
  await call('Chat without a key of my own: the system pays.', 'POST', '/v1/chat/completions', {
    model: 'demo',
    messages: [QUESTION],
  });
  const added = await call('Add a key.', 'POST', '/api/v1/byok/keys/add', {
    provider: 'demo',
    key: `demo-${randomBytes(12).toString('hex')}`,
    label: 'Made by npm run demo',
  });
  const { key } = Added.parse(JSON.parse(added));
  try {
    await call('Which key would answer now?', 'GET', '/api/v1/byok/route?model=demo');
    for (const stream of [false, true]) {
      const title = stream ? 'The same, streamed.' : 'Chat on my own key: I pay.';
      await call(title, 'POST', '/v1/chat/completions', { model: 'demo', stream, messages: [QUESTION] });
    }
  } finally {
    await call('Take the key away again.', 'DELETE', `/api/v1/byok/keys/demo?key_id=${key.id}`);
  }
}

function caller({ appUrl, cookieName, session, print }: DemoOptions) {
  return async (title: string, method: string, path: string, body?: unknown): Promise<string> => {
    print(`# ${title}`);
    print(`${method} ${appUrl}${path}${body === undefined ? '' : `\n${JSON.stringify(body)}`}`);
    const response = await fetch(`${appUrl}${path}`, {
      method,
      headers: {
        cookie: `${cookieName}=${session}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    print(`-> ${response.status}`);
    for (const name of RECEIPT) {
      const value = response.headers.get(name);
      if (value !== null) print(`${name}: ${value}`);
    }
    print(`${shortened(text)}\n`);
    if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}`);
    return text;
  };
}

/** An answer for the terminal: of a stream's many events the first, the last ones and their number. */
function shortened(text: string): string {
  const events = text.trim().split('\n\n');
  if (!text.startsWith('data:') || events.length <= SHOWN_EVENTS) return text.trim();
  const left = events.length - SHOWN_EVENTS;
  return [...events.slice(0, 2), `... ${left} more events ...`, ...events.slice(-2)].join('\n\n');
}
