import { describe, expect, test } from '@jest/globals';
import { createLog, type LogFields } from '../../src/lib/log.ts';

const SECRET = 'sk-hidden0123456789';

function createLogLines() {
  const lines: string[] = [];
  return { lines, log: createLog('info', { write: (line) => void lines.push(line) }) };
}

/** What a caller could pass by mistake; the compiler refuses most of it. */
const WRONG_FIELDS: [what: string, fields: object][] = [
  ...[
    ...['authorization', 'cookie', 'key', 'pem', 'private_key', 'passphrase', 'kubeconfig', 'api_key'],
    ...['token', 'secret', 'password', 'client_secret', 'encryptionKeys', 'sessionSecret', 'headers', 'body'],
  ].map((name): [string, object] => [`the member ${name}`, { [name]: SECRET }]),
  ['an object in a member of another kind', { reason: { authorization: SECRET } }],
  ['a nested object', { detail: { a: { b: SECRET } } }],
  ['an array of objects', { causes: [{ token: SECRET }] }],
  ['an array of pairs', { values: [['cookie', SECRET]] }],
  ['headers', { host: new Headers({ authorization: `Bearer ${SECRET}` }) }],
  ['a URL object', { url: new URL(`https://user:${SECRET}@host.test/`) }],
  ['bytes', { id: Buffer.from(SECRET) }],
  ['an object with toJSON', { id: { toJSON: () => SECRET } }],
  ['a function with toJSON', { id: Object.assign(() => SECRET, { toJSON: () => SECRET }) }],
  ['a map', { status: new Map([['key', SECRET]]) }],
  ['another member of a form', { form: { length: 1, has_known_prefix: true, characters: [], key: SECRET } }],
];

const withSecrets = {
  authorization: SECRET,
  request: { headers: { cookie: SECRET } },
  body: SECRET,
  input: SECRET,
};

function createErrorInErrors(depth: number): Error {
  const properties = { ...withSecrets, config: { secret: SECRET } };
  return Object.assign(
    new Error(`level ${depth}`, depth === 0 ? {} : { cause: createErrorInErrors(depth - 1) }),
    properties,
  );
}

const WRONG_ERRORS: [what: string, error: unknown][] = [
  ['properties of an error', createErrorInErrors(0)],
  ['properties of its causes', createErrorInErrors(3)],
  ['the user of a URL in its message', new Error(`connect https://user:${SECRET}@host.test/v1 failed`)],
  ['the user of a URL of a database', new Error(`cannot reach postgres://app:${SECRET}@db.test:5432/ops`)],
  ['the query of a URL in its message', new Error(`GET https://host.test/v1?api_key=${SECRET} failed`)],
  [
    'the fragment of a URL in its message',
    new Error(`GET "https://host.test/#access_token=${SECRET}" failed`),
  ],
  ['an Authorization in its message', new Error(`invalid header authorization: Bearer ${SECRET}`)],
  ['an encoded Authorization in its message', new Error(`Basic ${Buffer.from(SECRET).toString('base64')}`)],
  ['the message of a cause', new Error('failed', { cause: new Error(`https://host.test/?key=${SECRET}`) })],
  ['a cause that is a text', new Error('failed', { cause: `Bearer ${SECRET}` })],
  ['a cause that is an object', new Error('failed', { cause: withSecrets })],
  ['an object that was thrown', withSecrets],
  ['an array that was thrown', [SECRET]],
  ['a text that was thrown', `https://host.test/?key=${SECRET}`],
  ['errors of an aggregate', new AggregateError([new Error(SECRET)], 'all failed')],
  ['an error with toJSON', Object.assign(new Error('failed'), { toJSON: () => SECRET })],
  ['a code that is no text', Object.assign(new Error('failed'), { code: { key: SECRET } })],
];

describe('a log line', () => {
  test.each(WRONG_FIELDS)('drops %s', (_what, fields) => {
    const { lines, log } = createLogLines();
    log.info(fields, 'text');
    log.child(fields).info({ event: 'request' }, 'text');
    expect(lines).toHaveLength(2);
    expectNoSecret(lines);
  });

  test.each(WRONG_ERRORS)('does not have %s', (_what, error) => {
    const { lines, log } = createLogLines();
    log.warn({ err: error }, 'text');
    log.child({ err: error }).info('text');
    expectNoSecret(lines);
    for (const line of lines) expect(JSON.parse(line)).toHaveProperty('err.message');
  });

  test('does not have the credentials of a URL in its causes', () => {
    const { lines, log } = createLogLines();
    log.warn({ causes: [`https://user:${SECRET}@host.test/?key=${SECRET}`] }, 'text');
    expect(JSON.parse(lines.join(''))).toMatchObject({ causes: ['https://***@host.test/?***'] });
  });

  test('has name, message, code, stack and causes of an error', () => {
    const { lines, log } = createLogLines();
    const cause = Object.assign(new TypeError('below'), { code: 'E2' });
    log.warn({ err: Object.assign(new Error('above', { cause }), { code: 'E1' }) }, 'failed');
    expect(JSON.parse(lines.join(''))).toMatchObject({
      err: {
        ...{ type: 'Error', message: 'above', code: 'E1', stack: expect.stringContaining('log.test') },
        cause: { type: 'TypeError', message: 'below', code: 'E2' },
      },
    });
  });

  test('ends at circular causes and cuts long messages', () => {
    const { lines, log } = createLogLines();
    const circle = new Error('x'.repeat(1_000_000));
    circle.cause = circle;
    log.warn({ err: circle }, 'failed');
    expect(lines.join('').length).toBeLessThan(200_000);
  });

  test('has the members that were chosen, also those of the log it was created from', () => {
    const { lines, log } = createLogLines();
    const fields: LogFields = {
      ...{ event: 'request', status: 200, complete: true, upstream_request_id: null, saved_by: ['a', 'b'] },
      form: { length: 3, has_known_prefix: false, characters: ['digits'] },
    };
    log.child({ request_id: 'req_1' }).info(fields, 'request');
    expect(JSON.parse(lines.join(''))).toEqual({
      ...{ level: 30, time: expect.any(String), msg: 'request', request_id: 'req_1' },
      ...fields,
    });
  });
});

function expectNoSecret(lines: readonly string[]): void {
  const text = lines.join('');
  expect(text).not.toContain(SECRET);
  expect(text).not.toContain(Buffer.from(SECRET).toString('base64'));
  // The form of a Buffer in JSON.
  expect(text).not.toContain('"data":[');
}
