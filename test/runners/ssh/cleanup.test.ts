import { expect, it } from '@jest/globals';
import type { ClientChannel } from 'ssh2';
import { cleanUpSshRun } from '../../../src/runners/ssh/cleanup.ts';
import { startScriptedServer } from '../../lib/ssh/scripted-server.ts';
import { neverAborted, openConnections, serverAt } from '../../lib/ssh/servers.ts';

const login = { username: 'somebody', password: 'password-of-nobody' };

it('a cleanup drops what its server sends beyond 64 KB, also when that leaves the channel open', async () => {
  const server = await startScriptedServer({
    exec(channel) {
      // It answers no CLOSE.
      channel.close = () => undefined;
      channel.write(Buffer.alloc(128 * 1024, 'A'));
    },
  });
  const { connections } = openConnections();
  let used: ClientChannel | undefined;
  const start = async (command: string) =>
    (used = await connections.exec(serverAt(server, login), command, neverAborted()));
  expect(await cleanUpSshRun(start, 'run_1')).toBe(false);
  expect(used?.listenerCount('data')).toBe(0);
  // What arrives later is dropped, not left in the buffers of the channel.
  expect(used?.readableFlowing).toBe(true);
});
