import type { Duplex } from 'node:stream';
import type { Socket } from 'node:net';
import { Pool } from 'undici';
import { upstreamUnreachable } from './deadline.ts';
import type { Connector } from './guarded-agent.ts';

/** An HTTP connection pool for one server of a user. */
export interface GuardedPool {
  /** Follows no redirects and uses no proxy. The caller reads the bodies. */
  readonly pool: Pool;
  /** Closes all connections, also those being opened; open requests fail. */
  close(): Promise<void>;
}

/**
 * Keeps up to four connections to one server, opened with `connect` only.
 * @param origin of the server, for the `host` header. It does not decide where to connect.
 * @param headersTimeoutMs until a response begins. The reader of a body limits the body's time.
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
