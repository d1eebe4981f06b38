import { Agent, fetch, type Response } from 'undici';

/** A user who is signed in to the app. */
export interface AttackingUser {
  url: string;
  session: string;
}

const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0 });

export function send(
  { url, session }: AttackingUser,
  method: string,
  path: string,
  body?: string,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(`${url}${path}`, {
    method,
    dispatcher: agent,
    headers: { cookie: `session=${session}`, 'content-type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body }),
  });
}

/** Counts results, for example statuses of responses. */
export function createTally() {
  const counts = new Map<string, number>();
  return {
    add(result: string | number): void {
      counts.set(String(result), (counts.get(String(result)) ?? 0) + 1);
    },
    toString: () => [...counts].map(([result, count]) => `${count} x ${result}`).join(', '),
  };
}

/**
 * Repeats requests, each after the response to the one before. Resolves when each has been answered once.
 * @returns ends them, and returns their statuses.
 */
export async function repeat(requests: readonly (() => Promise<Response>)[]): Promise<() => Promise<string>> {
  const stop = new AbortController();
  const statuses = createTally();

  async function call(request: () => Promise<Response>): Promise<void> {
    const response = await request();
    await response.text();
    statuses.add(response.status);
  }

  await Promise.all(requests.map(call));
  const loops = requests.map(async (request) => {
    while (!stop.signal.aborted) await call(request);
  });
  return async () => {
    stop.abort();
    await Promise.all(loops);
    return `responses: ${statuses.toString()}`;
  };
}
