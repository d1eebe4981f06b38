import { createReadStream } from 'node:fs';
import type { Secret } from './kinds.ts';

/** A secret that was found, named by its kind only. */
export interface Hit {
  kind: Secret['kind'];
  form: Form;
  place: string;
  /** Byte offset of the first such hit in the place. */
  offset: number;
}

type Form = 'as it is' | 'in JSON' | 'in base64' | 'in base64url' | 'percent-encoded' | 'in hex';

export interface Search {
  /** Searches a whole text or buffer. */
  text(place: string, data: string | Buffer): void;
  /** Searches a file of any size in chunks. */
  file(place: string, file: string): Promise<void>;
  readonly hits: readonly Hit[];
  readonly bytes: number;
}

interface Needle {
  bytes: Buffer;
  kind: Secret['kind'];
  form: Form;
}

const GRAM_BYTES = 4;
const TABLE_BITS = 20;
const PIECE_BYTES = 4_194_304;

/**
 * Searches for all secrets in all their forms at once. A table contains the last 4 bytes of each form, and only matches
 * in the table are compared. About 100 MB a second for any number of secrets.
 */
export function createSearch(secrets: readonly Secret[]): Search {
  const needles = secrets.flatMap(formsOf);
  const byGram = Map.groupBy(needles, ({ bytes }) => bytes.readUInt32LE(bytes.length - GRAM_BYTES));
  const mayEndHere = new Uint8Array(1 << TABLE_BITS);
  for (const gram of byGram.keys()) mayEndHere[slotOf(gram)] = 1;
  // Not spread into arguments: a long test creates more secrets than a call can have arguments.
  const longest = needles.reduce((most, { bytes }) => Math.max(most, bytes.length), GRAM_BYTES);
  const hits = new Map<string, Hit>();
  let searched = 0;

  function scan(place: string, data: Buffer, base: number): void {
    let gram = 0;
    for (let index = 0; index < data.length; index += 1) {
      gram = ((gram >>> 8) | ((data[index] ?? 0) << 24)) >>> 0;
      if (mayEndHere[slotOf(gram)] === 1) compare(place, data, index + 1, base, byGram.get(gram) ?? []);
    }
  }

  function compare(place: string, data: Buffer, end: number, base: number, candidates: Needle[]): void {
    for (const { bytes, kind, form } of candidates) {
      const start = end - bytes.length;
      if (start < 0 || data.compare(bytes, 0, bytes.length, start, end) !== 0) continue;
      const name = `${kind} ${form} ${place}`;
      if (!hits.has(name)) hits.set(name, { kind, form, place, offset: base + start });
    }
  }

  return {
    text(place, data) {
      const bytes = Buffer.from(data as string);
      searched += bytes.length;
      scan(place, bytes, 0);
    },

    async file(place, file) {
      let kept = Buffer.alloc(0);
      let base = 0;
      for await (const piece of createReadStream(file, { highWaterMark: PIECE_BYTES })) {
        const data = Buffer.concat([kept, piece as Buffer]);
        searched += (piece as Buffer).length;
        scan(place, data, base);
        // A secret may cross the border of two chunks.
        kept = data.subarray(Math.max(0, data.length - longest));
        base += data.length - kept.length;
      }
    },

    get hits() {
      return [...hits.values()];
    },
    get bytes() {
      return searched;
    },
  };
}

// In jest's sandbox the access to a global is slower than the hash itself.
const { imul } = Math;

/** Multiplicative hash: the table fits into the processor's cache. */
function slotOf(gram: number): number {
  return imul(gram, 0x9e3779b1) >>> (32 - TABLE_BITS);
}

function formsOf({ kind, value }: Secret): Needle[] {
  const bytes = Buffer.from(value);
  const forms = new Map<string, Form>([
    // Without padding, so that both spellings match.
    [value.replace(/=+$/, ''), 'as it is'],
    [bytes.toString('hex'), 'in hex'],
  ]);
  const add = (text: string, form: Form) => {
    if (!forms.has(text)) forms.set(text, form);
  };
  add(JSON.stringify(value).slice(1, -1), 'in JSON');
  add(encodeURIComponent(value), 'percent-encoded');
  for (const shift of [0, 1, 2]) {
    const text = base64At(bytes, shift);
    add(text, 'in base64');
    add(text.replaceAll('+', '-').replaceAll('/', '_'), 'in base64url');
  }
  return [...forms].map(([text, form]) => ({ bytes: Buffer.from(text), kind, form }));
}

/**
 * The characters of a secret within the base64 of a longer text, for a secret that begins `shift` bytes after a group of
 * three. Characters at both ends that depend on the neighbouring bytes are omitted (as in `Basic base64(id:secret)`).
 */
function base64At(secret: Buffer, shift: number): string {
  const padded = Buffer.concat([Buffer.alloc(shift), secret]);
  const text = padded.toString('base64').replace(/=+$/, '');
  const isWhole = padded.length % 3 === 0;
  return text.slice(Math.ceil((shift * 8) / 6), isWhole ? undefined : -1);
}
