import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startApp, type CallOptions, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';

const KEYS = '/api/v1/byok/keys';
const SERVERS = '/api/v1/execution-servers';
const CHAT = '/v1/chat/completions';

let app: TestApp;
let session: string;
let keyId: string;

beforeAll(async () => {
  app = await startApp();
  session = await app.signIn(await createUser({ tier: 'starter' }));
  keyId = await addKey(app, session, { provider: 'openai', key: openAiKey() });
});
afterAll(() => app.stop());

const ssh = { host: '192.0.2.1', username: 'me', auth_method: 'password', password: 'a-password' };
const server = (changes: object) => ({ name: 'box', server_type: 'ssh', connection_config: ssh, ...changes });
const docker = (changes: object) =>
  server({ server_type: 'docker', connection_config: { host: 'tcp://192.0.2.1:2376', ...changes } });
const run = (changes: object) => ({ language: 'bash', code: '', ...changes });

/** Every text that is stored or written to the log, with a call that sends it. */
const TEXTS: [string, string, () => [method: string, path: string], (text: string) => object][] = [
  [
    'label',
    'label',
    () => ['POST', `${KEYS}/add`],
    (label) => ({ provider: 'openai', key: openAiKey(), label }),
  ],
  ['changed label', 'label', () => ['PATCH', `${KEYS}/openai/${keyId}`], (label) => ({ label })],
  ['server name', 'name', () => ['POST', SERVERS], (name) => server({ name })],
  ['changed server name', 'name', () => ['PUT', `${SERVERS}/any`], (name) => ({ name })],
  ['workspace', 'workspace_path', () => ['POST', SERVERS], (text) => server({ workspace_path: `/${text}` })],
  [
    'changed workspace',
    'workspace_path',
    () => ['PUT', `${SERVERS}/any`],
    (text) => ({ workspace_path: `/${text}` }),
  ],
  [
    'tested workspace',
    'workspace_path',
    () => ['POST', `${SERVERS}/test`],
    (text) => ({
      server_type: 'ssh',
      connection_config: ssh,
      workspace_path: `/${text}`,
    }),
  ],
  [
    'SSH user name',
    'connection_config.username',
    () => ['POST', SERVERS],
    (username) => server({ connection_config: { ...ssh, username } }),
  ],
  [
    'SSH host',
    'connection_config.host',
    () => ['POST', SERVERS],
    (host) => server({ connection_config: { ...ssh, host } }),
  ],
  [
    'volume source',
    'connection_config.volumes.0.source',
    () => ['POST', SERVERS],
    (text) => docker({ volumes: [{ source: `/srv/${text}`, target: '/data' }] }),
  ],
  [
    'volume target',
    'connection_config.volumes.0.target',
    () => ['POST', SERVERS],
    (text) => docker({ volumes: [{ source: 'data', target: `/${text}` }] }),
  ],
  [
    'file of a run',
    'files.0.path',
    () => ['POST', `${SERVERS}/default/run`],
    (path) => run({ files: [{ path, content: '' }] }),
  ],
  [
    'folder of a run',
    'workdir',
    () => ['POST', `${SERVERS}/default/run`],
    (text) => run({ workdir: `/${text}` }),
  ],
  [
    'endpoint',
    'endpoint',
    () => ['POST', `${KEYS}/add`],
    (text) => ({
      provider: 'custom',
      key: 'a-key',
      endpoint: `https://192.0.2.1/${text}`,
    }),
  ],
  ['model', 'model', () => ['POST', CHAT], (model) => ({ model, messages: [] })],
];

describe.each(TEXTS)('a %s', (_what, field, call, toBody) => {
  it.each([
    ['a bidirectional override', '\u202e'],
    ['a bidirectional isolate', '\u2066'],
    ['a zero-width space', '\u200b'],
    ['a lone surrogate', '\ud800'],
    ['an escape character', '\u001b'],
  ])('with %s is a 400 that names the field', async (_kind, character) => {
    const [method, path] = call();
    const response = await app.call(path, {
      method,
      session,
      // Lone surrogates are sent as escapes, as `JSON.stringify` writes them.
      json: toBody(`a${character}b`),
    });
    const text = await response.text();
    // The whole configuration is checked for lone surrogates, before its members.
    const named = character === '\ud800' ? field.split('.')[0] : field;
    expect([response.status, text]).toEqual([400, expect.stringContaining(`${named}`)]);
    expect(text).not.toContain(character);
  });
});

it.each([
  ['\u202e', 'U+202E'],
  ['\u2069', 'U+2069'],
  ['\ufeff', 'U+FEFF'],
  ['\udfff', 'U+DFFF'],
])('the message names the code point', async (character, name) => {
  const json = { label: `a${character}b` };
  const response = await app.call(`${KEYS}/openai/${keyId}`, { method: 'PATCH', session, json });
  expect([response.status, await response.json()]).toMatchObject([
    400,
    { errors: [{ path: 'label', message: expect.stringContaining(name) }] },
  ]);
});

describe.each([
  ['/api', `${KEYS}/add`],
  ['/v1', CHAT],
])('a body under %s', (_part, path) => {
  const post = async (contentType: string, body: string | Buffer) => {
    const options: CallOptions = { method: 'POST', session, body, headers: { 'content-type': contentType } };
    const response = await app.call(path, options);
    const text = await response.text();
    return [response.status, /"code":"([a-z_]+)"/.exec(text)?.[1]];
  };

  it.each([
    'charset=utf-7',
    'charset=utf-16',
    'charset=utf-16le',
    'charset=utf-32',
    'charset=latin1',
    'charset=iso-8859-1',
    'charset="utf-7"',
    'charset=',
    'charset=utf-8; charset=utf-7',
    'CHARSET=UTF-7',
  ])('in %s is a 415', async (parameter) => {
    expect(await post(`application/json; ${parameter}`, '{}')).toEqual([415, 'unsupported_media_type']);
  });

  it.each(['', '; charset=utf-8', '; charset=UTF-8', '; charset="utf-8"', ';charset=utf8', '; version=1'])(
    'of type application/json%s is read',
    async (parameters) => {
      expect(await post(`application/json${parameters}`, '[]')).toEqual([400, 'validation_failed']);
    },
  );

  it.each<[string, Buffer]>([
    ['an invalid byte', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    ['a cut character', Buffer.from([0x7b, 0x22, 0xe2, 0x82, 0x22, 0x3a, 0x31, 0x7d])],
    ['an overlong slash', Buffer.from([0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x3a, 0x31, 0x7d])],
    ['an encoded surrogate', Buffer.from([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d])],
    ['UTF-16', Buffer.from('{"provider":"openai"}', 'utf16le')],
    ['UTF-16 with its mark', Buffer.from('\ufeff{"provider":"openai"}', 'utf16le')],
    ['UTF-8 with a mark', Buffer.from('\ufeff{}')],
  ])('with %s is a 400', async (_kind, body) => {
    expect(await post('application/json', body)).toEqual([400, 'validation_failed']);
  });
});
