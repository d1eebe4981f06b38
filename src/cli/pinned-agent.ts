import { Agent, buildConnector } from 'undici';

/**
 * Builds the way out for calls that carry secrets of this installation: it connects to a given address,
 * whatever the name in the URL resolves to. `localhost` may lead to `[::1]`, where another program of this
 * machine can listen on a port that is ours on 127.0.0.1.
 * @param pins origin (`http://localhost:3000`) -> the address to connect to. Others are looked up as usual.
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
