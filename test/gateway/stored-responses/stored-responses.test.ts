import { describe, expect, it } from '@jest/globals';
import type { ResponseStore, StoredResponse } from '../../../src/gateway/stored-responses/response-store.ts';
import { createStoredResponses } from '../../../src/gateway/stored-responses/stored-responses.ts';
import { createLog } from '../../../src/lib/log.ts';
import type { Owner } from '../../../src/lib/owner.ts';

const OWNER: Owner = 'user:a';
const RESPONSE: StoredResponse = { id: 'resp_1', provider: 'openai', keyId: 'k', endpoint: null, model: 'm' };
const log = createLog('silent');

/** A store in memory whose writes end with `written`. */
function createStore(written: Promise<unknown> = Promise.resolve()) {
  const rows = new Map<string, StoredResponse>();
  let pruneCount = 0;
  const store: ResponseStore = {
    async write(_owner, response) {
      await written;
      rows.set(response.id, response);
    },
    find: (_owner, id) => Promise.resolve(rows.get(id)),
    remove: () => Promise.resolve(),
    removeAll: () => Promise.resolve(),
    listOwners: () => Promise.resolve([]),
    prune() {
      pruneCount += 1;
      return Promise.resolve();
    },
  };
  return { store, rows, pruneCount: () => pruneCount };
}

describe('recording a response', () => {
  it('does not fail the request when the row cannot be written', async () => {
    const { store } = createStore(Promise.reject(new Error('no database')));
    await createStoredResponses(store).record(OWNER, RESPONSE, log);
  });

  it('delays the request for a second at most', async () => {
    const { store } = createStore(new Promise(() => undefined));
    await createStoredResponses(store).record(OWNER, RESPONSE, log);
  });

  it('is waited for by a reference to it in the same process, and by flush', async () => {
    const written = Promise.withResolvers<undefined>();
    const { store, rows } = createStore(written.promise);
    const responses = createStoredResponses(store);
    void responses.record(OWNER, RESPONSE, log);
    const found = responses.find(OWNER, RESPONSE.id);
    const flushed = responses.flush().then(() => rows.size);
    written.resolve(undefined);
    expect(await found).toEqual(RESPONSE);
    expect(await flushed).toBe(1);
  });

  it.each(['', '..', '.x', 'a/b', 'a b', 'a?b', 'a\n', 'ä', 'x'.repeat(257)])(
    'refuses the id %j, which could change a path',
    async (id) => {
      const { store, rows } = createStore();
      const responses = createStoredResponses(store);
      await responses.record(OWNER, { ...RESPONSE, id }, log);
      expect(rows.size).toBe(0);
      rows.set(id, RESPONSE);
      expect(await responses.find(OWNER, id)).toBeUndefined();
    },
  );

  it('prunes old rows at most once an hour', async () => {
    let nowMs = 0;
    const { store, pruneCount } = createStore();
    const responses = createStoredResponses(store, () => nowMs);
    for (nowMs of [0, 1, 3_599_999]) await responses.record(OWNER, RESPONSE, log);
    expect(pruneCount()).toBe(1);
    nowMs = 3_600_000;
    await responses.record(OWNER, RESPONSE, log);
    expect(pruneCount()).toBe(2);
  });
});
