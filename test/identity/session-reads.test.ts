import { createHmac } from 'node:crypto';
import { afterEach, describe, expect, it } from '@jest/globals';
import type { Request } from 'express';
import type { SessionContent } from '../../src/identity/schema.ts';
import { createSessionCookie } from '../../src/identity/session-cookie.ts';
import { createSessions } from '../../src/identity/sessions.ts';
import { createLog } from '../../src/lib/log.ts';
import type { Database } from '../../src/lib/postgres/database.ts';

const SECRET = 'a secret of this test';
const content: SessionContent = {
  ...{ userId: 'user', keycloakSessionId: 'keycloak', signedInAtMs: 1, tokens: 'encrypted', refreshAtMs: 2 },
  ...{ authenticatedAtMs: 1, client: null },
};

const signed = (id: string) =>
  `session=${encodeURIComponent(`s:${id}.${createHmac('sha256', SECRET).update(id).digest('base64').replace(/=+$/, '')}`)}`;

let close: () => void = () => undefined;
afterEach(() => {
  close();
});

/** @returns a lookup, and the queries so far. The library of the rows has no database, so a query of its own fails. */
function createLookup(existing: readonly string[]) {
  const queries: string[] = [];
  const sessions = createSessions({
    database: {} as Database,
    ...{ secret: SECRET, cookieName: 'session', secure: false, log: createLog('silent') },
    sessionCookie: createSessionCookie('session', SECRET),
    store: {
      findUsedSession(id) {
        queries.push(`row ${id}`);
        return Promise.resolve(existing.includes(id) ? content : undefined);
      },
      listValidSessionIds(ids) {
        queries.push(`list ${ids.join()}`);
        return Promise.resolve(new Set(ids.filter((id) => existing.includes(id))));
      },
    },
  });
  close = () => {
    sessions.close();
  };
  const find = (cookie?: string) => sessions.find({ headers: { cookie } } as Request);
  return { find, queries };
}

describe('the lookup of a session', () => {
  it('reads the row of the cookie once, and writes nothing', async () => {
    const { find, queries } = createLookup(['one']);
    expect(await find(signed('one'))).toEqual({ ...content, id: 'one' });
    expect(queries).toEqual(['row one']);
  });

  it('reads the row again at each check, so that a session that has ended is not found', async () => {
    const existing = ['one'];
    const { find, queries } = createLookup(existing);
    await find(signed('one'));
    existing.pop();
    expect(await find(signed('one'))).toBeUndefined();
    expect(queries).toEqual(['row one', 'row one']);
  });

  it.each([
    ['no cookie', undefined],
    ['another cookie', 'other=1'],
    ['a cookie that is not signed', 'session=one'],
    ['a cookie with another signature', signed('one').replace(/one/, 'two')],
  ])('reads nothing for %s', async (_what, cookie) => {
    const { find, queries } = createLookup(['one']);
    expect(await find(cookie)).toBeUndefined();
    expect(queries).toEqual([]);
  });

  it('refuses cookies of two sessions that exist', async () => {
    const { find } = createLookup(['one', 'two']);
    await expect(find(`${signed('one')}; ${signed('two')}`)).rejects.toMatchObject({
      code: 'validation_failed',
    });
  });

  it('ignores the cookie of a session that has ended beside one that exists', async () => {
    const { find, queries } = createLookup(['two']);
    expect(await find(`${signed('one')}; ${signed('two')}`)).toEqual({ ...content, id: 'two' });
    expect(queries).toEqual(['list one,two', 'row two']);
  });
});
