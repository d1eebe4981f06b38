import { expect, it } from '@jest/globals';
import pg from 'pg';
import { startApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { readEventStream } from '../support/stream.ts';
import { answer, startUpstream } from '../support/upstream.ts';

it('a graceful stop stores every request, also a stream that it ends', async () => {
  const openai = await startUpstream();
  const app = await startApp({ env: { UPSTREAM_OPENAI_URL: openai.url } });
  try {
    const session = await app.signIn(await createUser({ tier: 'starter' }));
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    const chat = (more: object = {}) => {
      const json = { model: 'gpt-4o', messages: [], ...more };
      return app.call('/v1/chat/completions', { method: 'POST', session, json });
    };
    openai.reply(answer.held(3, new Promise(() => undefined)));
    const stream = readEventStream(await chat({ stream: true }));
    await stream.first;
    const whole = await Promise.all([chat(), chat(), chat()]);
    await Promise.all(whole.map((response) => response.text()));
    await app.stop();
    await stream.events.catch(() => undefined);
    const client = new pg.Client({ connectionString: app.ownerDatabaseUrl });
    await client.connect();
    const { rows } = await client.query<{ outcome: string }>('SELECT outcome FROM usage_requests');
    await client.end();
    expect(rows.map(({ outcome }) => outcome).sort()).toEqual(['cancelled', 'done', 'done', 'done']);
  } finally {
    await app.stop();
    await openai.stop();
  }
});
