import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { adminClient, createUser, type TestUser } from '../support/stack.ts';
import { findStreamError, readEventStream } from '../support/stream.ts';
import { answer, startUpstream, type Upstream } from '../support/upstream.ts';

let openai: Upstream;
let app: TestApp;

beforeAll(async () => {
  openai = await startUpstream();
  app = await startApp({ env: { UPSTREAM_OPENAI_URL: openai.url } });
});
afterAll(async () => {
  await app.stop();
  await openai.stop();
});
afterEach(() => {
  openai.reset();
});

// The benchmark measures how soon (npm run bench).
describe('a chat stream gets the protocol’s error event and ends, in the app and at the provider', () => {
  it.each<[string, (user: TestUser, session: string) => Promise<unknown>]>([
    [
      'when its user is disabled in Keycloak',
      async ({ id }) => (await adminClient()).users.update({ id }, { enabled: false }),
    ],
    ['when its user is deleted in Keycloak', async ({ id }) => (await adminClient()).users.del({ id })],
    [
      'when its user signs out in the app',
      (_user, session) => app.call('/auth/logout', { method: 'POST', session }),
    ],
    [
      'when an administrator signs its user out in Keycloak',
      async ({ id }) => (await adminClient()).users.logout({ id }),
    ],
  ])('%s', async (_name, end) => {
    const user = await createUser({ tier: 'starter' });
    const session = await app.signIn(user);
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    openai.answerAll(answer.endlessStream({ everyMs: 20 }));
    const json = { model: 'gpt-4o', stream: true, messages: [{ role: 'user', content: 'Hello' }] };
    const stream = readEventStream(await app.call('/v1/chat/completions', { method: 'POST', session, json }));
    await stream.first;

    await end(user, session);
    expect(findStreamError(await stream.events)).toMatchObject({ code: 'unauthenticated' });
    await openai.closed(0);
    expect((await app.call('/api/v1/me', { session })).status).toBe(401);
  });
});
