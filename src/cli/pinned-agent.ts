import { Agent, buildConnector } from 'undici';

/**
 * Creates an agent for requests with secrets of this installation. It connects to a fixed address per origin instead
 * of resolving the host name: `localhost` can resolve to `[::1]`, where another program can listen on a port that
 * this installation uses on 127.0.0.1.
 * @param pins origin (`http://localhost:3000`) -> address to connect to. Other origins are resolved as usual.
 */
export function createPinnedAgent(pins: ReadonlyMap<string, string>): Agent {
  const connect = buildConnector({});
  return new Agent({
    connect: (options, callback) => {
      const { origin } = new URL(`${options.protocol}//${options.hostname}:${options.port}`);
      connect({ ...options, hostname: pins.get(origin) ?? options.hostname }, callback);
    },
  });
}
