import { Writable } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import { createLog } from '../../src/lib/log.ts';

function createLogLines() {
  const lines: string[] = [];
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString());
      done();
    },
  });
  return { lines, log: createLog('info', destination) };
}

describe('a log line', () => {
  test.each([
    'authorization',
    'cookie',
    'key',
    'pem',
    'private_key',
    'passphrase',
    'kubeconfig',
    'token',
    'password',
  ])('masks the member %s at the top and in nested objects', (name) => {
    const { lines, log } = createLogLines();
    log.info({ [name]: 'hidden', a: { [name]: 'hidden', b: { [name]: 'hidden', id: 'shown' } } }, 'text');
    expect(lines.join('')).not.toContain('hidden');
    expect(JSON.parse(lines.join(''))).toMatchObject({
      [name]: '***',
      a: { b: { [name]: '***', id: 'shown' } },
    });
  });

  test('has no other properties of an error than name, message, code, stack and causes', () => {
    const { lines, log } = createLogLines();
    log.warn({ err: Object.assign(new Error('text'), { code: 'E1', body: 'hidden' }) }, 'failed');
    expect(lines.join('')).not.toContain('hidden');
    expect(JSON.parse(lines.join(''))).toMatchObject({ err: { message: 'text', code: 'E1' } });
  });
});
