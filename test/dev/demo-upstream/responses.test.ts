import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { request } from 'undici';
import { startDemoUpstream, type DemoUpstream } from '../../../src/dev/demo-upstream/server.ts';

const KEY = 'demo-0123456789-wxyz';
const hello = { model: 'demo', input: 'Good morning' };

let demo: DemoUpstream;

beforeAll(async () => {
  demo = await startDemoUpstream({ delayMs: 0 });
});
afterAll(() => demo.stop());

async function call(method: 'GET' | 'POST' | 'DELETE', path: string, body?: object, key = KEY) {
  const sent = await request(`${demo.url}/responses${path}`, {
    method,
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: sent.statusCode, text: await sent.body.text() };
}

const create = async (body: object) => JSON.parse((await call('POST', '', body)).text) as { id: string };

describe('the demo’s Responses', () => {
  it('states that it is a demo, and repeats the text', async () => {
    expect(JSON.stringify(await create(hello))).toMatch(/This is a demo.*ends in wxyz\..*Good morning/);
  });

  it('calls the function that the text names, and no other kind of tool', async () => {
    const tools = [{ type: 'web_search' }, { type: 'function', name: 'clock' }];
    const output = [{ type: 'function_call', name: 'clock', arguments: '{}' }];
    expect(await create({ ...hello, input: 'Call clock', tools })).toMatchObject({ output });
    expect(await create({ ...hello, tools, tool_choice: { type: 'function', name: 'clock' } })).toMatchObject(
      { output },
    );
  });

  it('streams typed events whose last one is the whole response', async () => {
    const { text } = await call('POST', '', { ...hello, stream: true });
    const events = text.trimEnd().split('\n\n');
    for (const [index, event] of events.entries()) {
      const [type = '', data = ''] = event.split('\n');
      expect(JSON.parse(data.slice(6))).toMatchObject({ type: type.slice(7), sequence_number: index });
    }
    expect(events.at(-1)).toContain('event: response.completed');
  });

  it('keeps stored responses for their own key alone', async () => {
    const { id } = await create(hello);
    expect((await call('GET', `/${id}`)).status).toBe(200);
    expect((await call('GET', `/${id}`, undefined, 'demo-another-key-1')).status).toBe(404);
    const { id: unstored } = await create({ ...hello, store: false });
    expect((await call('GET', `/${unstored}`)).status).toBe(404);
  });

  it.each<[string, 'GET' | 'POST' | 'DELETE', string, object | undefined, number]>([
    ['an unknown response', 'GET', '/resp_unknown', undefined, 404],
    ['an unknown response', 'DELETE', '/resp_unknown', undefined, 404],
    ['an unknown response', 'POST', '/resp_unknown/cancel', undefined, 404],
    ['an unknown call', 'POST', '/resp_unknown/other', undefined, 404],
    ['a missing input', 'POST', '', { model: 'demo' }, 400],
    ['an unknown previous response', 'POST', '', { ...hello, previous_response_id: 'resp_unknown' }, 400],
    ['another method', 'GET', '', undefined, 405],
  ])('refuses %s (%s %s)', async (_name, method, path, body, status) => {
    const sent = await call(method, path, body);
    expect([sent.status, JSON.parse(sent.text)]).toMatchObject([
      status,
      { error: { type: 'invalid_request_error' } },
    ]);
  });
});
