import { EventEmitter } from 'node:events';
import type { Response } from 'express';
import { describe, expect, it } from '@jest/globals';
import { createBodyBudget, type BodyBudget } from '../../src/http/body-budget.ts';
import { isAppError } from '../../src/lib/errors.ts';

const MB = 1024 * 1024;
const LARGEST = 32 * MB;
/** The size of a body that is never counted. */
const SMALL = 64 * 1024;

/** One request: its memory, and how its upload goes. */
function openRequest(budget: BodyBudget, user: string) {
  const response = Object.assign(new EventEmitter(), { destroyed: false }) as unknown as Response;
  const reservation = budget.createReservation(user, response);
  const request = {
    reservation,
    endedBy: undefined as string | undefined,
    /** Receives the whole body, or all of it but its end, at this speed. */
    upload(bytes: number, speed = 1) {
      const pace = { received: () => undefined, speed: () => speed, [Symbol.dispose]: () => undefined };
      const upload = reservation.beginUpload(bytes, pace, (error) => (request.endedBy = error.code));
      for (let sent = 0; sent < bytes; sent += MB) upload.received(Math.min(MB, bytes - sent));
      return upload;
    },
    /** Waits for the provider with a complete body. */
    hold(bytes: number) {
      request.upload(bytes, Infinity)[Symbol.dispose]();
      reservation.keepOnly(bytes);
    },
    close: () => response.emit('close'),
  };
  return request;
}

type OpenRequest = ReturnType<typeof openRequest>;

function codeOf(action: () => void): string {
  try {
    action();
    return 'fits';
  } catch (error) {
    return isAppError(error) ? error.code : 'another error';
  }
}

/** More requests than a user may have open. */
const MAX_REQUESTS = 200;

/** Repeats an action, each in a request of its own, until it is refused. @returns how many fitted. */
function repeat(budget: BodyBudget, user: string, action: (request: OpenRequest) => void): number {
  for (let count = 0; count < MAX_REQUESTS; count += 1) {
    const code = codeOf(() => {
      action(openRequest(budget, user));
    });
    if (code !== 'fits') return count;
  }
  return MAX_REQUESTS;
}

describe('the memory of bodies', () => {
  it('is limited to a third for one user', () => {
    const budget = createBodyBudget();
    expect(repeat(budget, 'a', (request) => request.upload(12 * MB))).toBe(3);
    expect(codeOf(() => openRequest(budget, 'a').upload(12 * MB))).toBe('rate_limited');
    expect(codeOf(() => openRequest(budget, 'b').upload(12 * MB))).toBe('fits');
  });

  it('is free again when the response is closed', () => {
    const budget = createBodyBudget();
    const first = openRequest(budget, 'a');
    first.upload(LARGEST);
    expect(codeOf(() => openRequest(budget, 'a').upload(LARGEST))).toBe('rate_limited');
    first.close();
    expect(codeOf(() => openRequest(budget, 'a').upload(LARGEST))).toBe('fits');
  });

  it('does not limit small bodies and their small responses, however full it is', () => {
    const budget = createBodyBudget();
    for (let user = 0; user < 16; user += 1) repeat(budget, `user ${user}`, (one) => one.hold(LARGEST));
    for (let count = 0; count < 200; count += 1) {
      const request = openRequest(budget, 'user 0');
      expect(codeOf(() => request.upload(SMALL))).toBe('fits');
      request.reservation.keepOnly(0);
      expect(codeOf(() => request.reservation.add(SMALL))).toBe('fits');
    }
    expect(codeOf(() => openRequest(budget, 'another').upload(LARGEST))).toBe('busy');
  });

  it('when it is full, the slowest upload is ended for a faster one', () => {
    const budget = createBodyBudget();
    const uploads = [3, 1, 2, 4].map((speed, index) => {
      const request = openRequest(budget, `user ${index}`);
      request.upload(LARGEST, speed);
      return request;
    });
    expect(codeOf(() => openRequest(budget, 'another').upload(LARGEST, 5))).toBe('fits');
    expect(uploads.map(({ endedBy }) => endedBy)).toEqual([
      undefined,
      'request_timeout',
      undefined,
      undefined,
    ]);
  });

  it('a slower upload, or one that is only declared, ends no other', () => {
    const budget = createBodyBudget();
    const uploads = Array.from({ length: 4 }, (_, index) => {
      const request = openRequest(budget, `user ${index}`);
      request.upload(LARGEST, 2);
      return request;
    });
    expect(codeOf(() => openRequest(budget, 'slower').upload(LARGEST, 1))).toBe('busy');
    const pace = { received: () => undefined, speed: () => Infinity, [Symbol.dispose]: () => undefined };
    openRequest(budget, 'silent').reservation.beginUpload(LARGEST, pace, () => undefined);
    expect(uploads.map(({ endedBy }) => endedBy)).toEqual(Array(4).fill(undefined));
  });

  it('a faster upload ends none of a user who holds less', () => {
    const budget = createBodyBudget();
    const small = openRequest(budget, 'another');
    small.upload(MB, 1);
    for (const user of ['a', 'b', 'c', 'a', 'b', 'c'])
      repeat(budget, user, (request) => request.upload(LARGEST, 2));
    expect(small.endedBy).toBeUndefined();
    expect(codeOf(() => openRequest(budget, 'another').upload(MB, Infinity))).toBe('fits');
  });

  it('a complete body is not ended, and neither is the upload of a request that has ended', () => {
    const budget = createBodyBudget();
    const ended = openRequest(budget, 'a');
    ended.upload(LARGEST, 1)[Symbol.dispose]();
    for (const user of ['b', 'c', 'd']) openRequest(budget, user).upload(LARGEST, 1)[Symbol.dispose]();
    expect(codeOf(() => openRequest(budget, 'another').upload(LARGEST, 5))).toBe('busy');
    expect(ended.endedBy).toBeUndefined();
  });

  const WAYS: Record<string, (request: OpenRequest, bytes: number) => void> = {
    'uploads without an end': (request, bytes) => request.upload(bytes, Infinity),
    'complete bodies whose provider does not answer': (request, bytes) => request.hold(bytes),
    'responses that arrive slowly': ({ reservation }, bytes) => reservation.add(bytes),
    'responses that are not read': ({ reservation }, bytes) => {
      reservation.add(bytes);
      reservation.keepOnly(bytes);
    },
  };
  const attacks = Object.entries(WAYS).flatMap(([first, one]) =>
    Object.entries(WAYS).map(([second, other]) => [first, second, one, other] as const),
  );

  it.each(attacks)('three users with %s, then %s, leave room for the largest body', (_a, _b, one, other) => {
    const budget = createBodyBudget();
    for (const way of [one, other])
      for (const bytes of [LARGEST, 8 * MB, MB, 128 * 1024])
        for (const user of ['a', 'b', 'c']) repeat(budget, user, (request) => way(request, bytes));
    expect(codeOf(() => openRequest(budget, 'another').upload(LARGEST))).toBe('fits');
  });
});
