import { once } from 'node:events';
import { Writable } from 'node:stream';
import { describe, expect, it } from '@jest/globals';
import express from 'express';
import supertest from 'supertest';
import { createErrorHandler } from '../../src/http/errors.ts';
import { createRequestContext } from '../../src/http/request-context.ts';
import { AppError, databaseUnavailable, keycloakUnavailable } from '../../src/lib/errors.ts';
import { createLog } from '../../src/lib/log.ts';

/** The log lines of a request that failed with `thrown`, without the line that every request gets. */
async function loggedFor(
  thrown: unknown,
  level: 'info' | 'trace' = 'info',
): Promise<Record<string, unknown>[]> {
  const lines: Record<string, unknown>[] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      const line = JSON.parse(chunk.toString()) as Record<string, unknown>;
      if (line['event'] === 'request') sink.emit('closed');
      else lines.push(line);
      done();
    },
  });
  const closed = once(sink, 'closed');
  const app = express();
  app.use(createRequestContext(createLog(level, sink), () => undefined));
  app.use(() => {
    throw thrown;
  });
  app.use(createErrorHandler([]));
  await supertest(app).get('/');
  await closed;
  return lines;
}

const WARN = 40;
const ERROR = 50;

describe('the log of a failed request', () => {
  it.each([
    [keycloakUnavailable(undefined), 'keycloak_unavailable'],
    [databaseUnavailable(undefined), 'database_unavailable'],
    [new AppError('busy', 'Later.'), 'busy'],
    [new AppError('upstream_unreachable', 'Away.'), 'upstream_unreachable'],
    [new AppError('upstream_timeout', 'Slow.'), 'upstream_timeout'],
  ])('has one warning for an expected failure (%#)', async (error, code) => {
    const lines = await loggedFor(error);
    expect(lines).toMatchObject([
      { level: WARN, code, detail: error.detail, causes: [], msg: 'request failed' },
    ]);
  });

  it('has only the code of a refusal, because its detail can name what belongs to the user', async () => {
    const refusal = new AppError('duplicate_key', 'You have stored this key already, as “Work”.', {
      extra: { existing_label: 'Work' },
    });
    expect(await loggedFor(refusal)).toEqual([]);
    const lines = await loggedFor(refusal, 'trace');
    expect(lines).toMatchObject([{ level: 20, code: 'duplicate_key', msg: 'request refused' }]);
    expect(JSON.stringify(lines)).not.toContain('Work');
  });

  it('names the causes in order, without a stack', async () => {
    const root = Object.assign(new AggregateError([], ''), { code: 'ECONNREFUSED' });
    const failed = new TypeError('fetch failed', { cause: root });
    const [line] = await loggedFor(keycloakUnavailable(failed));
    expect(line).toMatchObject({ level: WARN, causes: ['fetch failed', 'ECONNREFUSED'] });
    expect(JSON.stringify(line)).not.toMatch(/stack|error-log\.test|\n/);
  });

  it('handles circular causes and causes that are not errors', async () => {
    const circle = new Error('again');
    circle.cause = circle;
    expect((await loggedFor(databaseUnavailable(circle)))[0]?.['causes']).toHaveLength(10);
    expect((await loggedFor(databaseUnavailable('a text')))[0]?.['causes']).toEqual(['a text']);
  });

  it('has an error with its stack for an internal error', async () => {
    const [line] = await loggedFor(new TypeError('a fault'));
    expect(line).toMatchObject({ level: ERROR, err: { message: 'a fault' } });
    expect((line?.['err'] as { stack: string }).stack).toContain('error-log.test');
  });
});
