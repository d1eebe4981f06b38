import type { Duplex } from 'node:stream';
import type { Socket } from 'node:net';
import { Pool } from 'undici';
import { upstreamUnreachable } from './deadline.ts';
import type { Connector } from './guarded-agent.ts';

/** Requests to one server that a user brought. */
export interface GuardedPool {
  /** Follows no redirect and knows no proxy; its bodies are read as they are wanted. */
  readonly pool: Pool;
  /** Closes every connection, also those being opened; requests under way fail. */
  close(): Promise<void>;
}

/**
 * Keeps up to four connections to one server, opened by `connect` alone.
 * @param origin of the server; says what the `host` header shows, not where connections lead.
 * @param headersTimeoutMs for an answer to begin; how long its body may take is for its reader to bound.
 */
export function createGuardedPool(origin: string, connect: Connector, headersTimeoutMs: number): GuardedPool {
  const closing = new AbortController();
  const pool = new Pool(origin, {
    connect(_options, done) {
      connect(closing.signal).then(
        (stream: Duplex) => {
          done(null, stream as Socket);
        },
        (error: unknown) => {
          done(error as Error, null);
        },
      );
    },
    connections: 4,
    pipelining: 1,
    allowH2: false,
    maxHeaderSize: 16 * 1024,
    headersTimeout: headersTimeoutMs,
    bodyTimeout: 0,
  });
  return {
    pool,
    async close() {
      closing.abort(upstreamUnreachable(new Error('closed')));
      await pool.destroy();
    },
  };
}
