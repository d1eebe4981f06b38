import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { text as readText } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { addKey, openAiKey } from '../support/key.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { createUser } from '../support/stack.ts';
import { response, responseFrames, typedFrame } from '../support/upstream/responses-frames.ts';
import { answer } from '../support/upstream.ts';

const RESPONSES = '/v1/responses';
const hello = { model: 'gpt-4o', input: 'Hello' };
const streamed = { ...hello, stream: true };

let gateway: Gateway;
let session: string;
let freeSession: string;
let keyId: string;

beforeAll(async () => {
  gateway = await startGateway(({ openai }) => ({
    UPSTREAM_PERPLEXITY_URL: openai.url,
    DEFAULT_LLM_PROVIDER: 'openai',
    DEFAULT_LLM_API_KEY: openAiKey(),
    DEFAULT_LLM_MODEL: 'gpt-4o',
  }));
  const { app } = gateway;
  session = await app.signIn(await createUser({ tier: 'starter' }));
  keyId = await addKey(app, session, { provider: 'openai', key: openAiKey() });
  freeSession = await app.signIn(await createUser({ tier: 'free' }));
});
afterAll(() => gateway.stop());
afterEach(() => {
  gateway.reset();
});

const send = (json: object, as = session) =>
  gateway.app.call(RESPONSES, { method: 'POST', session: as, json });

describe('POST /v1/responses on an own key', () => {
  it('passes the bytes of the request and of the response', async () => {
    gateway.openai.reply(response({ text: 'Hi', headers: { 'x-request-id': 'upstream-1' } }));
    const body =
      '{"input" : [{"type":"reasoning","id":"rs_1","encrypted_content":"x","summary":[]}], "model":"gpt-4o", "store":false,"x":1.0e0}';
    const sent = await gateway.app.call(RESPONSES, {
      ...{ method: 'POST', session, body },
      headers: { 'content-type': 'application/json' },
    });
    const received = await gateway.openai.received(1);
    expect([received.path, received.body.toString()]).toEqual(['/v1/responses', body]);
    expect([sent.status, await sent.json()]).toMatchObject([200, { id: 'resp_0', object: 'response' }]);
    expect(Object.fromEntries(sent.headers)).toMatchObject({
      'x-ops-provider': 'openai',
      'x-ops-key-scope': 'personal',
      'x-ops-key-id': keyId,
      'x-ops-upstream-request-id': 'upstream-1',
    });
    expect(sent.headers.get('x-ops-store')).toBeNull();
  });

  it('passes typed events byte for byte and ends with the last one, without [DONE]', async () => {
    let frames: string[] = [];
    gateway.openai.reply((writer) => {
      frames = responseFrames(writer.request, { text: 'Grüße \u{1F600} an alle' });
      return answer.steps([...frames, 'data: [DONE]\n\n'])(writer);
    });
    const sent = await send(streamed);
    expect(await sent.text()).toBe(frames.join(''));
    expect(gateway.app.events('answer_passed').at(-1)).toMatchObject({ end: 'done', key_id: keyId });
  });

  it.each(['completed', 'incomplete'] as const)(
    'ends with response.%s even when the upstream keeps the connection open',
    async (status) => {
      gateway.openai.reply(async (writer) => {
        writer.head(200, { 'content-type': 'text/event-stream' });
        for (const frame of responseFrames(writer.request, { status })) await writer.write(frame);
        await writer.waitForClose();
      });
      expect(await (await send(streamed)).text()).toContain(`event: response.${status}\n`);
      await gateway.openai.closed(0);
    },
  );

  it('keeps the upstream’s own response.failed, secrets redacted, as the end of the stream', async () => {
    const key = openAiKey();
    const ownSession = await gateway.app.signIn(await createUser({ tier: 'starter' }));
    await addKey(gateway.app, ownSession, { provider: 'openai', key });
    const failed = {
      id: 'resp_x',
      object: 'response',
      status: 'failed',
      error: { code: 'own', message: `the key ${key}` },
    };
    gateway.openai.reply(
      answer.steps([typedFrame('response.failed', { sequence_number: 4, response: failed })]),
    );
    const text = await (await send(streamed, ownSession)).text();
    expect(text).toBe(
      typedFrame('response.failed', {
        sequence_number: 4,
        response: { ...failed, error: { code: 'own', message: 'the key ***' } },
      }),
    );
  });

  it('adds response.failed, which Codex reads, to an error event of the upstream', async () => {
    const error = { type: 'server_error', code: 'own', message: 'It broke.', param: null };
    gateway.openai.reply(answer.steps([typedFrame('error', { sequence_number: 7, error })]));
    const text = await (await send(streamed)).text();
    expect(text).toBe(
      typedFrame('error', { sequence_number: 7, code: 'own', message: 'It broke.', param: null, error }) +
        typedFrame('response.failed', {
          sequence_number: 8,
          response: { object: 'response', status: 'failed', error: { code: 'own', message: 'It broke.' } },
        }),
    );
  });

  it('serves keys of Perplexity, which has no other protocol', async () => {
    const key = `pplx-${randomBytes(24).toString('hex')}`;
    await addKey(gateway.app, session, { provider: 'perplexity', key });
    gateway.openai.reply(response());
    const sent = await send({ model: 'perplexity/sonar', input: 'x' });
    const received = await gateway.openai.received(1);
    expect([sent.status, sent.headers.get('x-ops-provider')]).toEqual([200, 'perplexity']);
    expect([received.path, received.key, received.json()['model']]).toEqual([
      '/v1/responses',
      key,
      'perplexity/sonar',
    ]);
  });

  it('sends an error of ours in OpenAI’s shape', async () => {
    const sent = await send({ ...hello, previous_response_id: 5 });
    expect([sent.status, await sent.json()]).toMatchObject([
      400,
      { error: { code: 'validation_failed', param: 'previous_response_id', type: 'invalid_request_error' } },
    ]);
  });
});

describe('POST /v1/responses where the system pays', () => {
  it.each([
    ['absent', {}],
    ['null', { store: null }],
  ])('sends store: false when it is %s, and says so', async (_name, extra) => {
    gateway.system.reply(response());
    const sent = await send({ ...hello, ...extra, metadata: { a: 'b' } }, freeSession);
    expect(sent.status).toBe(200);
    expect((await gateway.system.received(1)).json()).toEqual({ store: false, ...hello });
    expect(Object.fromEntries(sent.headers)).toMatchObject({
      'x-ops-store': 'false',
      'x-ops-dropped': 'metadata',
      'x-ops-key-scope': 'system',
    });
  });

  it('passes store: false without a header', async () => {
    gateway.system.reply(response());
    const sent = await send({ ...hello, store: false }, freeSession);
    expect([sent.status, sent.headers.get('x-ops-store')]).toEqual([200, null]);
    expect((await gateway.system.received(1)).json()).toEqual({ ...hello, store: false });
  });

  it('refuses a reference to a stored response without a call', async () => {
    const sent = await send({ ...hello, previous_response_id: 'resp_1' }, freeSession);
    expect([sent.status, await sent.json()]).toMatchObject([
      400,
      { error: { code: 'field_not_allowed', param: 'previous_response_id' } },
    ]);
    expect(gateway.system.requests).toHaveLength(0);
  });
});

describe('a WebSocket', () => {
  it.each([RESPONSES, '/v1/realtime?model=x'])(
    'to %s is refused so that the client uses HTTP',
    async (path) => {
      const { hostname, port } = new URL(gateway.app.url);
      const request = httpRequest({
        ...{ hostname, port, path },
        headers: {
          cookie: `session=${session}`,
          connection: 'Upgrade',
          upgrade: 'websocket',
          'sec-websocket-version': '13',
          'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
        },
      });
      request.end();
      const [received] = (await once(request, 'response')) as [IncomingMessage];
      const sent = { status: received.statusCode, body: await readText(received) };
      expect([sent.status, JSON.parse(sent.body)]).toMatchObject([
        426,
        { error: { code: 'websocket_unsupported', type: 'invalid_request_error' } },
      ]);
    },
  );

  it('is not meant by a plain GET', async () => {
    const sent = await gateway.app.call(RESPONSES, { session });
    expect([sent.status, sent.headers.get('allow')]).toEqual([405, 'POST']);
  });
});
