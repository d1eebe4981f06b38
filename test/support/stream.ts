import type { Response } from 'undici';

/** An event stream that is being read, so that a test can act while it is open. */
export interface OpenStream {
  /** Resolves with the first event's data. */
  first: Promise<string>;
  /** Resolves with the data of all events when the stream ends; rejects when the connection breaks. */
  events: Promise<string[]>;
}

/** Starts to read a streamed response. Comments are skipped. */
export function readEventStream(response: Response): OpenStream {
  const first = Promise.withResolvers<string>();
  async function read(): Promise<string[]> {
    const decoder = new TextDecoder();
    const found: string[] = [];
    let rest = '';
    for await (const chunk of response.body ?? []) {
      rest += decoder.decode(chunk as Uint8Array, { stream: true });
      const frames = rest.split('\n\n');
      rest = frames.pop() ?? '';
      for (const frame of frames) {
        if (!frame.startsWith('data: ')) continue;
        found.push(frame.slice('data: '.length));
        first.resolve(frame);
      }
    }
    return found;
  }
  const events = read();
  events.catch(first.reject);
  first.promise.catch(() => undefined);
  return { first: first.promise, events };
}

/** The error in the last event of a stream; undefined when it is not an error. */
export function findStreamError(events: readonly string[]): { code: string; message: string } | undefined {
  const last = events.at(-1);
  if (last === undefined || last === '[DONE]') return undefined;
  return (JSON.parse(last) as { error?: { code: string; message: string } }).error;
}
