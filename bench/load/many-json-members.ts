import type { LoadAttack } from './attack.ts';

const MEMBERS = 900_000;
const CLIENTS = 6;

/** One for each parser: a chat, and a run whose variables have invalid names. */
function createBodies(): [path: string, body: string][] {
  const members = (count: number) => Array.from({ length: count }, (_, at) => `"-${at}":""`).join(',');
  return [
    ['/v1/chat/completions', `{"model":"gpt-4o","messages":[],"metadata":{${members(MEMBERS)}}}`],
    ['/api/v1/execution-servers/default/run', `{"language":"bash","code":"","env":{${members(60_000)}}}`],
  ];
}

export const manyJsonMembers: LoadAttack = {
  name: `${CLIENTS} clients of one user that send JSON with ${MEMBERS} members`,
  prepare(app, { session }) {
    const bodies = createBodies();
    return Promise.resolve({
      begin() {
        const stop = new AbortController();
        const clients = Array.from({ length: CLIENTS }, async (_, client) => {
          const [path, body] = bodies[client % bodies.length] ?? ['', ''];
          const headers = { 'content-type': 'application/json' };
          while (!stop.signal.aborted)
            await (await app.call(path, { method: 'POST', session, headers, body })).text();
        });
        return Promise.resolve(async () => {
          stop.abort();
          await Promise.all(clients);
        });
      },
    });
  },
};
