import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  createKeycloakEventReader,
  type KeycloakEvent,
} from '../../src/lib/keycloak/keycloak-event-reader.ts';
import { toAdminEventChanges, toEndedSessionIds } from '../../src/identity/keycloak-events.ts';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createLog } from '../../src/lib/log.ts';
import { createDatabase } from '../support/database.ts';

let database: Database;
beforeAll(async () => {
  const { appUrl } = await createDatabase();
  database = openDatabase({ url: appUrl, max: 2, applicationName: 'test', log: createLog('silent') });
});
afterAll(async () => {
  await database.close();
});

/** Keycloak's list of events; a page query returns the newest first. */
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
  const repeated = new Set<string>();
  const clock = { ms: 0 };
  const failure: { next: Error | undefined } = { next: undefined };
  const read = createKeycloakEventReader<KeycloakEvent>({
    database,
    cursorName,
    pageSize: 3,
    now,
    monotonicNow: () => clock.ms,
    fetchPage,
    handle(events) {
      if (failure.next !== undefined) {
        const error = failure.next;
        failure.next = undefined;
        return Promise.reject(error);
      }
      handled.push(...events.map((event) => event.id));
      return Promise.resolve(events.filter((event) => repeated.has(event.id)));
    },
  });
  return { read, handled, failure, repeated, clock };
}

const T = 1_800_000_000_000;

describe('reading events from a cursor', () => {
  it('reads all pages to the end, each event once', async () => {
    const { add, fetchPage } = source();
    const { read, handled } = reader('paging', fetchPage);
    add('old', T - 3_600_000);
    await read();
    for (let number = 0; number < 10; number += 1) add(`e${String(number)}`, T + number);
    await read();
    await read();
    expect(handled.filter((id) => id !== 'old').sort()).toEqual(
      Array.from({ length: 10 }, (_, number) => `e${String(number)}`),
    );
  });

  it('handles an event that appears late, with an earlier time than one already read', async () => {
    const { add, fetchPage } = source();
    const { read, handled } = reader('late', fetchPage);
    add('first', T);
    await read();
    add('later', T + 5_000);
    await read();
    add('late', T + 1_000);
    await read();
    expect(handled).toEqual(['first', 'later', 'late']);
  });

  it('handles events again after the handler failed', async () => {
    const { add, fetchPage } = source();
    const { read, handled, failure } = reader('failing', fetchPage);
    add('start', T);
    await read();
    add('event', T + 60_000);
    failure.next = new Error('database unavailable');
    await expect(read()).rejects.toThrow('database unavailable');
    await read();
    expect(handled).toEqual(['start', 'event']);
  });

  it('repeats the events that the handler returns for 15 s, also when no newer event moves the cursor', async () => {
    const { add, fetchPage } = source();
    const { read, handled, repeated, clock } = reader('repeated', fetchPage);
    add('start', T);
    await read();
    repeated.add('event');
    add('event', T + 1);
    add('other', T + 2);
    for (let poll = 0; poll < 3; poll += 1) await read();
    expect(handled).toEqual(['start', 'other', 'event', 'event', 'event']);
    clock.ms += 16_000;
    for (let poll = 0; poll < 3; poll += 1) await read();
    // Handled once more, and then no longer.
    expect(handled.slice(5)).toEqual(['event']);
  });

  it('starts with the current time on the very first start, not with the whole history', async () => {
    const { add, fetchPage } = source();
    const { read, handled } = reader('history', fetchPage);
    for (let day = 1; day < 20; day += 1) add(`day ${String(day)}`, T - day * 86_400_000);
    add('newest', T);
    await read();
    expect(handled).toEqual(['newest']);
  });

  it('continues after a restart shortly before the position of the last process', async () => {
    const { add, fetchPage } = source();
    const before = reader('restart', fetchPage);
    add('long before', T - 3_600_000);
    add('seen', T);
    await before.read();
    add('while down', T + 1_000);
    add('much later', T + 3_600_000);
    const after = reader('restart', fetchPage);
    await after.read();
    expect(after.handled.sort()).toEqual(['much later', 'seen', 'while down']);
  });

  it('handles every event in every process, also if another process is ahead', async () => {
    const { add, fetchPage } = source();
    const [one, two] = [reader('two', fetchPage), reader('two', fetchPage)];
    add('start', T);
    await one.read();
    await two.read();
    add('event', T + 60_000);
    add('next', T + 3_600_000);
    await one.read();
    await two.read();
    expect(two.handled).toEqual(['start', 'next', 'event']);
  });
});

describe("a difference between Keycloak's clock and the app's", () => {
  const MINUTE_MS = 60_000;

  it.each([-5, 5])('has no effect if it is %i minutes', async (minutes) => {
    const { add, fetchPage } = source();
    const { read, handled } = reader(`off by ${String(minutes)}`, fetchPage);
    const there = T + minutes * MINUTE_MS;
    add('long before', there - 60 * MINUTE_MS);
    await read();
    for (let number = 0; number < 7; number += 1) {
      add(`e${String(number)}`, there + number * 2_000);
      await read();
    }
    expect(handled).toEqual(['long before', 'e0', 'e1', 'e2', 'e3', 'e4', 'e5', 'e6']);
  });

  it('loses no event if Keycloak was 5 minutes ahead and is corrected, also over a restart', async () => {
    const { add, fetchPage } = source();
    const { read, handled } = reader('set back', fetchPage);
    add('ahead', T + 5 * MINUTE_MS);
    await read();
    add('set right', T + 1_000);
    await read();
    await read();
    expect(handled).toEqual(['ahead', 'set right']);
    const next = reader('set back', fetchPage, () => T + 60_000);
    add('after the restart', T + 61_000);
    await next.read();
    expect(next.handled).toContain('after the restart');
  });
});

describe('changes of admin events', () => {
  const event = (resourcePath: string, time = T) => ({ id: resourcePath, time, resourcePath });

  it('any event below a user counts as a change of the user', () => {
    const orders = toAdminEventChanges([
      event('users/u1'),
      event('users/u2/reset-password'),
      event('users/u1'),
    ]);
    expect(orders).toMatchObject({ changedUserIds: ['u1', 'u2'], loggedOutUsers: [], endedSessionIds: [] });
  });

  it('distinguish the logout of a user, the end of a session and the logout of the realm', () => {
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
      changedUserIds: ['u1'],
      loggedOutUsers: [{ userId: 'u1', atMs: T + 5 }],
      endedSessionIds: ['s1'],
      allLoggedOutAtMs: T + 2,
    });
  });

  it('a logout event of a user names the ended session', () => {
    expect(
      toEndedSessionIds([
        { id: 'a', time: T, sessionId: 's1' },
        { id: 'b', time: T, sessionId: null },
      ]),
    ).toEqual(['s1']);
  });
});
