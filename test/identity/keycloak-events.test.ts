import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  createKeycloakEventReader,
  type KeycloakEvent,
} from '../../src/lib/keycloak/keycloak-event-reader.ts';
import { toAdminEventChanges, toEndedSessionIds } from '../../src/identity/keycloak-events.ts';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createLog } from '../../src/lib/log.ts';
import { createDatabase } from '../support/stack.ts';

let database: Database;
beforeAll(async () => {
  const { appUrl } = await createDatabase();
  database = openDatabase({ url: appUrl, max: 2, applicationName: 'test', log: createLog('silent') });
});
afterAll(async () => {
  await database.close();
});

/** Keycloak's list of events, newest first, as a page query answers it. */
function source() {
  const events: KeycloakEvent[] = [];
  return {
    add: (id: string, time: number) => void events.push({ id, time }),
    fetchPage: ({ dateFromMs, first, max }: { dateFromMs: number; first: number; max: number }) =>
      Promise.resolve(
        events
          .filter((event) => event.time >= dateFromMs)
          .sort((a, b) => b.time - a.time)
          .slice(first, first + max),
      ),
  };
}

function reader(cursorName: string, fetchPage: ReturnType<typeof source>['fetchPage'], now = () => T) {
  const handled: string[] = [];
  const failure: { next: Error | undefined } = { next: undefined };
  const read = createKeycloakEventReader<KeycloakEvent>({
    database,
    cursorName,
    pageSize: 3,
    now,
    fetchPage,
    handle(events) {
      if (failure.next !== undefined) {
        const error = failure.next;
        failure.next = undefined;
        return Promise.reject(error);
      }
      handled.push(...events.map((event) => event.id));
      return Promise.resolve();
    },
  });
  return { read, obeyed: handled, failure };
}

const T = 1_800_000_000_000;

describe('reading events from a cursor', () => {
  it('reads all pages to the end, each event once', async () => {
    const { add, fetchPage } = source();
    const { read, obeyed } = reader('paging', fetchPage);
    add('old', T - 3_600_000);
    await read();
    for (let number = 0; number < 10; number += 1) add(`e${String(number)}`, T + number);
    await read();
    await read();
    expect(obeyed.filter((id) => id !== 'old').sort()).toEqual(
      Array.from({ length: 10 }, (_, number) => `e${String(number)}`),
    );
  });

  it('obeys an event that appears late, with an earlier time than one already read', async () => {
    const { add, fetchPage } = source();
    const { read, obeyed } = reader('late', fetchPage);
    add('first', T);
    await read();
    add('later', T + 5_000);
    await read();
    add('late', T + 1_000);
    await read();
    expect(obeyed).toEqual(['first', 'later', 'late']);
  });

  it('obeys again what it failed to obey', async () => {
    const { add, fetchPage } = source();
    const { read, obeyed, failure } = reader('failing', fetchPage);
    add('start', T);
    await read();
    add('event', T + 60_000);
    failure.next = new Error('database away');
    await expect(read()).rejects.toThrow('database away');
    await read();
    expect(obeyed).toEqual(['start', 'event']);
  });

  it('begins, at the first start ever, with now and not with years of history', async () => {
    const { add, fetchPage } = source();
    const { read, obeyed } = reader('history', fetchPage);
    for (let day = 1; day < 20; day += 1) add(`day ${String(day)}`, T - day * 86_400_000);
    add('newest', T);
    await read();
    expect(obeyed).toEqual(['newest']);
  });

  it('goes on, after a restart, where the last process was, and a bit before', async () => {
    const { add, fetchPage } = source();
    const before = reader('restart', fetchPage);
    add('long before', T - 3_600_000);
    add('seen', T);
    await before.read();
    add('while down', T + 1_000);
    add('much later', T + 3_600_000);
    const after = reader('restart', fetchPage);
    await after.read();
    expect(after.obeyed.sort()).toEqual(['much later', 'seen', 'while down']);
  });

  it('obeys every event in every process: another one that is ahead takes nothing away', async () => {
    const { add, fetchPage } = source();
    const [one, two] = [reader('two', fetchPage), reader('two', fetchPage)];
    add('start', T);
    await one.read();
    await two.read();
    add('event', T + 60_000);
    add('next', T + 3_600_000);
    await one.read();
    await two.read();
    expect(two.obeyed).toEqual(['start', 'next', 'event']);
  });
});

describe('a clock of Keycloak that is not ours', () => {
  const MINUTE_MS = 60_000;

  it.each([-5, 5])('changes nothing when it is %i minutes off', async (minutes) => {
    const { add, fetchPage } = source();
    const { read, obeyed } = reader(`off by ${String(minutes)}`, fetchPage);
    const there = T + minutes * MINUTE_MS;
    add('long before', there - 60 * MINUTE_MS);
    await read();
    for (let number = 0; number < 7; number += 1) {
      add(`e${String(number)}`, there + number * 2_000);
      await read();
    }
    expect(obeyed).toEqual(['long before', 'e0', 'e1', 'e2', 'e3', 'e4', 'e5', 'e6']);
  });

  it('hides nothing when it ran 5 minutes ahead and is set right, also over a restart', async () => {
    const { add, fetchPage } = source();
    const { read, obeyed } = reader('set back', fetchPage);
    add('ahead', T + 5 * MINUTE_MS);
    await read();
    add('set right', T + 1_000);
    await read();
    await read();
    expect(obeyed).toEqual(['ahead', 'set right']);
    const next = reader('set back', fetchPage, () => T + 60_000);
    add('after the restart', T + 61_000);
    await next.read();
    expect(next.obeyed).toContain('after the restart');
  });
});

describe('what admin events ask for', () => {
  const event = (resourcePath: string, time = T) => ({ id: resourcePath, time, resourcePath });

  it('any event below a user touches the user', () => {
    const orders = toAdminEventChanges([
      event('users/u1'),
      event('users/u2/reset-password'),
      event('users/u1'),
    ]);
    expect(orders).toMatchObject({ touchedUserIds: ['u1', 'u2'], loggedOutUsers: [], endedSessionIds: [] });
  });

  it('logging a user out, ending a session and logging everybody out are told apart', () => {
    const orders = toAdminEventChanges([
      event('users/u1/logout', T + 5),
      event('sessions/s1'),
      event('logout-all', T + 1),
      event('logout-all', T + 2),
      event('clients/c1'),
      event('users'),
      { id: 'x', time: T },
    ]);
    expect(orders).toEqual({
      touchedUserIds: ['u1'],
      loggedOutUsers: [{ userId: 'u1', atMs: T + 5 }],
      endedSessionIds: ['s1'],
      everyoneAtMs: T + 2,
    });
  });

  it("a user's own logout names the session that ended", () => {
    expect(
      toEndedSessionIds([
        { id: 'a', time: T, sessionId: 's1' },
        { id: 'b', time: T, sessionId: null },
      ]),
    ).toEqual(['s1']);
  });
});
