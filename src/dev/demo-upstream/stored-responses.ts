import { DemoError } from './protocol.ts';

/** A response with the items that it answers. */
export interface StoredDemoResponse {
  response: Readonly<Record<string, unknown>> & { id: string };
  /** The items of the conversation up to this response's own output, the newest last. */
  history: readonly object[];
  /** The items of this request alone. */
  input: readonly (object & { id: string })[];
  isBackground: boolean;
}

export interface DemoResponseStore {
  add(key: string, stored: StoredDemoResponse): void;
  /** @throws DemoError 404 in OpenAI's words; also for a response of another key. */
  get(key: string, id: string): StoredDemoResponse;
  find(key: string, id: string): StoredDemoResponse | undefined;
  delete(key: string, id: string): void;
}

/** When exceeded, the oldest response is dropped. */
const MAX_STORED = 200;

/** Keeps responses in memory. Each key sees its own only, as with a real provider. */
export function createDemoResponseStore(): DemoResponseStore {
  const stored = new Map<string, StoredDemoResponse>();
  const toName = (key: string, id: string) => JSON.stringify([key, id]);
  const find = (key: string, id: string) => stored.get(toName(key, id));
  return {
    add(key, one) {
      stored.set(toName(key, one.response.id), one);
      const oldest = stored.keys().next();
      if (stored.size > MAX_STORED && oldest.done !== true) stored.delete(oldest.value);
    },
    find,
    get(key, id) {
      const found = find(key, id);
      if (found === undefined) throw new DemoError(404, `Response with id '${id}' not found.`);
      return found;
    },
    delete(key, id) {
      stored.delete(toName(key, id));
    },
  };
}
