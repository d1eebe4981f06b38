import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from '@jest/globals';
import { embeddings } from '../../../../src/gateway/surfaces/embeddings/surface.ts';
import { isVector, withoutVectors } from '../../../../src/gateway/surfaces/embeddings/vectors.ts';
import { classifyResponse, toResponseLimits } from '../../../../src/gateway/upstream/response.ts';

/** The text after all steps, and their number. */
function reduce(text: string): { text: string; steps: number } {
  const reducing = withoutVectors(Buffer.from(text));
  for (let steps = 1; ; steps += 1) {
    const step = reducing.next();
    if (step.done === true) return { text: step.value.toString(), steps };
  }
}

const entry = (embedding: unknown) => ({ object: 'embedding', index: 0, embedding });
const listOf = (...vectors: unknown[]) => ({ object: 'list', data: vectors.map(entry), model: 'm' });

describe('isVector', () => {
  it.each<[unknown, boolean]>([
    [[], true],
    [[0.1, -2e-7, 3], true],
    ['AACAPw==', true],
    ['', true],
    ['-_8=', true],
    [['0.1'], false],
    [[[0.1]], false],
    [[null], false],
    ['not base64', false],
    [null, false],
    [{ 0: 1 }, false],
  ])('%j: %s', (value, expected) => {
    expect(isVector(value)).toBe(expected);
  });
});

describe('withoutVectors', () => {
  it.each([
    ['numbers', listOf([0.1, -2.5e-7], [3]), listOf([], [])],
    ['base64', listOf('AACAPw==', 'AA=='), listOf('', '')],
    ['an embedding that is no vector', listOf([1], null, {}, ['a'], [[1], [2]], 'no base64', 7), null],
    ['the name in a text', listOf('"embedding": [1]'), null],
    ['the name at the end of another one', { 'an "embedding': [1] }, { 'an "embedding': [] }],
    ['the name as a value', { object: 'embedding', x: ['embedding', [1]] }, null],
    ['no embedding', { error: { message: 'no' } }, null],
  ])('replaces vectors and nothing else: %s', (_name, value, expected) => {
    const reduced = JSON.parse(reduce(JSON.stringify(value)).text) as { data?: { embedding: unknown }[] };
    if (expected !== null) expect(reduced).toEqual(expected);
    else {
      const first = reduced.data?.[0];
      // The first of the list with other values is a vector.
      if (Array.isArray(first?.embedding) && first.embedding.length === 0) first.embedding = [1];
      expect(reduced).toEqual(value);
    }
  });

  it('keeps white space and all other bytes', () => {
    const text = '\n{ "data" :[ {"embedding" :\t[ 1 ,\n 2 ] , "index":0}\r\n], "ü" : 1.0e0 }';
    expect(reduce(text).text).toBe(text.replace('[ 1 ,\n 2 ]', '[]'));
  });

  it.each([
    '{"data":[{"embedding":[1,,2]}]}',
    '{"data":[{"embedding":[1,2}]}',
    '{"data":[{"embedding":[01]}]}',
    '{"data":[{"embedding":[1]]}]}',
    '{"data":[{"embedding":"AA}]}',
    '{"data":[{"embedding":[NaN]}]}',
    '{"a":"x"embedding":[1]}',
    '{"embedding":[1]',
    '{"embedding":',
    '{"embedding"',
  ])('makes no valid JSON of %s', (text) => {
    expect(() => JSON.parse(text) as unknown).toThrow();
    expect(() => JSON.parse(reduce(text).text) as unknown).toThrow();
  });

  it('lets other requests proceed after 2,000 short values as well', () => {
    const short = JSON.stringify({ data: Array.from({ length: 9_000 }, () => ({ embedding: [] })) });
    expect(reduce(short).steps).toBe(5);
  });

  it.each([
    ['arrays that do not end', '"embedding":['],
    ['texts that do not end', '"embedding":"'],
    ['names alone', '"embedding":'],
  ])('takes time in proportion to the bytes for %s', (_name, part) => {
    const megabytes = (count: number) => part.repeat((count * 1024 * 1024) / part.length);
    const text = megabytes(4);
    const before = process.cpuUsage();
    reduce(text);
    const { user, system } = process.cpuUsage(before);
    // A search from each name to its limit would take minutes.
    expect((user + system) / 1_000).toBeLessThan(5_000);
  });
});

/** Counts the turns of the event loop, in which other requests proceed. */
function countTurns(): { stop(): Promise<number> } {
  const stopping = new AbortController();
  const counting = (async () => {
    let turns = 0;
    for (; !stopping.signal.aborted; turns += 1) await delay(1);
    return turns;
  })();
  return {
    stop() {
      stopping.abort();
      return counting;
    },
  };
}

const NUMBERS = 1_536;
const vector = Array.from({ length: NUMBERS }, (_, index) => Math.sin(index) / 10);
const COUNT = Math.ceil((20 * 1024 * 1024) / JSON.stringify(vector).length);
const base64 = Buffer.from(new Float32Array(vector).buffer).toString('base64').repeat(4);

describe('a response of 20 MB', () => {
  it.each([
    ['numbers', JSON.stringify(listOf(...Array.from({ length: COUNT }, () => vector)))],
    ['base64', JSON.stringify(listOf(...Array.from({ length: 640 }, () => base64)))],
  ])('of %s is checked in steps, while other requests proceed, and passes as it is', async (_name, text) => {
    const bytes = Buffer.from(text);
    expect(bytes.length).toBeGreaterThan(20 * 1024 * 1024);
    const { text: reduced, steps } = reduce(text);
    expect(reduced.length).toBeLessThan(bytes.length / 100);
    // Each step takes at most 1 MB.
    expect(steps).toBeGreaterThan(20);
    const others = countTurns();
    const classified = await classifyResponse(
      { status: 200, headers: {}, body: Readable.from([bytes]), isFromPublicAddress: false },
      {
        surface: embeddings,
        isStreaming: false,
        limits: toResponseLimits({ isUserSupplied: false }),
        reservation: {
          userId: 'user',
          beginUpload: () => ({ received: () => undefined, [Symbol.dispose]: () => undefined }),
          add: () => undefined,
          keepOnly: () => undefined,
        },
        signal: new AbortController().signal,
      },
    );
    expect(await others.stop()).toBeGreaterThan(steps / 2);
    expect(classified).toMatchObject({ kind: 'json', status: 200 });
    expect(classified.kind === 'json' && classified.body.equals(bytes)).toBe(true);
  });
});
