import type { Request, Response } from 'express';
import { onResponseClosed } from '../http/on-response-closed.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { Log } from '../lib/log.ts';
import { toVisibleText } from '../lib/visible-text.ts';
import { containsToken } from './token-format.ts';
import { writeTokenUse, type StoredToken, type TokenUse } from './tokens-store.ts';

export interface TokenUseDeps {
  database: Database;
  log: Log;
  /** A monotonic clock, in ms. */
  now?: () => number;
}

/** Writes when and how tokens were last used. */
export interface TokenUseWriter {
  /**
   * Writes the use when the response is closed, in the background and at most once a minute for each token. A request
   * counts once, however often it is authenticated.
   */
  track(token: StoredToken, request: Request, response: Response): void;
  /** Resolves when all pending writes have ended. */
  flush(): Promise<void>;
}

const MIN_WRITE_INTERVAL_MS = 60_000;
/** Beyond it, the token that was written longest ago is written once more than needed. */
const MAX_REMEMBERED = 10_000;
const MAX_CLIENT_LENGTH = 120;

export function createTokenUseWriter({
  database,
  log,
  now = () => performance.now(),
}: TokenUseDeps): TokenUseWriter {
  /** Token id -> time of the last write, the oldest first. */
  const writtenAtMs = new Map<string, number>();
  const tracked = new WeakSet<Response>();
  const pending = new Set<Promise<void>>();

  function isWriteDue(id: string): boolean {
    const lastMs = writtenAtMs.get(id);
    if (lastMs !== undefined && now() - lastMs < MIN_WRITE_INTERVAL_MS) return false;
    writtenAtMs.delete(id);
    writtenAtMs.set(id, now());
    const oldest = writtenAtMs.keys().next();
    if (writtenAtMs.size > MAX_REMEMBERED && !oldest.done) writtenAtMs.delete(oldest.value);
    return true;
  }

  function write({ id, owner }: StoredToken, use: TokenUse): void {
    if (!isWriteDue(id)) return;
    const writing = database
      .withOwner(owner, (sql) => writeTokenUse(sql, id, use))
      .catch((error: unknown) => {
        writtenAtMs.delete(id);
        log.warn({ err: error }, 'the last use of a token could not be stored');
      })
      .finally(() => pending.delete(writing));
    pending.add(writing);
  }

  return {
    track(token, request, response) {
      if (tracked.has(response)) return;
      tracked.add(response);
      const client = readClient(request);
      onResponseClosed(response, () => {
        write(token, { client, status: response.headersSent ? response.statusCode : null });
      });
    },
    flush: async () => {
      await Promise.all(pending);
    },
  };
}

/** The `User-Agent` as it may be shown. Null when there is none, and for one that contains a token by mistake. */
export function readClient(request: Request): string | null {
  const text = toVisibleText(request.get('user-agent') ?? '').trim();
  return text === '' || containsToken(text) ? null : text.slice(0, MAX_CLIENT_LENGTH);
}
