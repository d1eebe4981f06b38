import { describe, expect, it } from '@jest/globals';
import { createRunExit, type NumberedEvent, type ViewerEvent } from '../../src/runs/events.ts';
import { createEventBuffer, type EventBuffer } from '../../src/runs/event-buffer.ts';

const MIB = 1024 * 1024;
const PIECE = 64 * 1024;
const EXIT = createRunExit('exited', null);

function output(bytes: number, stream: 'stdout' | 'stderr' = 'stdout'): ViewerEvent {
  return { type: 'output', stream, encoding: 'utf8', data: Buffer.alloc(bytes, 'x') };
}

async function readAll(
  journal: EventBuffer,
  afterSeq = 0,
  signal = new AbortController().signal,
): Promise<NumberedEvent[]> {
  const seen: NumberedEvent[] = [];
  for await (const one of journal.subscribe(afterSeq, signal)) seen.push(one);
  return seen;
}

function bytesIn(seen: readonly NumberedEvent[]) {
  let [shown, dropped] = [0, 0];
  for (const { news } of seen) {
    if (news.type === 'output') shown += news.data.length;
    if (news.type === 'truncated') dropped += news.droppedBytes;
  }
  return { shown, dropped };
}

describe('a journal', () => {
  it('numbers from 1 and shows everybody the same, whenever they come, up to the exit', async () => {
    const journal = createEventBuffer();
    const early = readAll(journal);
    journal.append({ type: 'phase', phase: 'started', position: null });
    journal.append(output(3));
    const middle = readAll(journal);
    journal.append(EXIT);
    const [a, b, c] = await Promise.all([early, middle, readAll(journal)]);
    expect(a.map(({ seq }) => seq)).toEqual([1, 2, 3]);
    expect(b).toEqual(a);
    expect(c).toEqual(a);
    expect(await readAll(journal, 2)).toEqual(a.slice(2));
  });

  it('tells one who was away how much of each stream is missing, and nothing twice', async () => {
    const journal = createEventBuffer();
    for (let at = 0; at < 400; at += 1) journal.append(output(PIECE, at % 4 === 0 ? 'stderr' : 'stdout'));
    journal.append(EXIT);
    const seen = await readAll(journal);
    const { shown, dropped } = bytesIn(seen);
    expect(shown + dropped).toBe(400 * PIECE);
    expect(shown).toBeLessThanOrEqual(5 * MIB);
    expect(seen.filter(({ news }) => news.type === 'truncated')).toHaveLength(2);
    const seqs = seen.map(({ seq }) => seq);
    expect(seqs).toEqual([...new Set(seqs)].sort((x, y) => x - y));
    expect(seen.at(-1)).toEqual({ seq: 401, news: EXIT });
  });

  it('counts exactly what a viewer missed who fell behind in the middle', async () => {
    const journal = createEventBuffer();
    journal.append(output(PIECE));
    const viewer = journal.subscribe(0, new AbortController().signal);
    const seen = [(await viewer.next()).value as NumberedEvent];
    for (let at = 0; at < 300; at += 1) journal.append(output(PIECE));
    journal.append(EXIT);
    for await (const one of viewer) seen.push(one);
    const { shown, dropped } = bytesIn(seen);
    expect(shown + dropped).toBe(301 * PIECE);
    expect(dropped).toBeGreaterThan(0);
  });

  it('says what did not go into the beginning, which is what is stored', () => {
    const journal = createEventBuffer();
    for (let at = 0; at < 20; at += 1) journal.append(output(PIECE));
    const stored = bytesIn(journal.head(0));
    expect(stored.shown).toBe(MIB);
    expect(journal.bytesBeyondHead()).toEqual({ stdout: 4 * PIECE, stderr: 0 });
    expect(journal.head(3)[0]?.seq).toBe(4);
    expect(journal.total).toEqual({ stdout: 20 * PIECE, stderr: 0 });
  });

  it('goes on after what an earlier holder has stored', async () => {
    const journal = createEventBuffer([{ seq: 1, news: { type: 'phase', phase: 'queued', position: 2 } }]);
    journal.append({ type: 'phase', phase: 'started', position: null });
    journal.append(EXIT);
    expect((await readAll(journal)).map(({ seq }) => seq)).toEqual([1, 2, 3]);
  });

  it('lets viewers go when they leave, and when another process goes on', async () => {
    const journal = createEventBuffer();
    const leaving = new AbortController();
    const [gone, left] = [readAll(journal, 0, leaving.signal), readAll(journal)];
    leaving.abort();
    expect(await gone).toEqual([]);
    journal.close();
    expect(await left).toEqual([]);
  });

  it('is bounded in number too: a program that drips for hours fills no memory', async () => {
    const journal = createEventBuffer();
    for (let at = 0; at < 50_000; at += 1) journal.append(output(1));
    journal.append(EXIT);
    const seen = await readAll(journal);
    expect(seen.length).toBeLessThan(2 * 16_384 + 3);
    const { shown, dropped } = bytesIn(seen);
    expect(shown + dropped).toBe(50_000);
  });
});
