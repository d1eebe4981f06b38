import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { sshServerConfig } from '../runs/ssh-server.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { describeOn, sshHosts } from '../support/hosts.ts';
import { createServerClient } from '../support/servers.ts';
import { adminClient } from '../support/stack.ts';

describeOn('ssh', 'the owner of a server', () => {
  let app: TestApp;
  let relay: Server;
  /** The app's connections to the SSH server. */
  const sockets = new Set<Socket>();

  beforeAll(async () => {
    app = await startApp({ env: { EGRESS_ALLOW: '127.0.0.1' } });
    const { host, port } = sshHosts().plain;
    relay = createServer((inbound) => {
      sockets.add(inbound);
      const outbound = connect(port, host);
      for (const socket of [inbound, outbound]) socket.on('error', () => undefined);
      inbound.pipe(outbound).pipe(inbound);
      inbound.once('close', () => {
        sockets.delete(inbound);
        outbound.destroy();
      });
    }).listen(0, '127.0.0.1');
    await once(relay, 'listening');
  }, 60_000);
  afterAll(async () => {
    await app.stop();
    relay.close();
  });

  it('who is disabled has no connection to it 10 s later, also without a request', async () => {
    const owner = await createServerClient(app);
    const { port } = relay.address() as AddressInfo;
    const connection_config = { ...sshServerConfig(), port };
    const { id } = await owner.add({ name: 'A machine', connection_config });
    await owner.confirm(id, sshHosts().plain.hostKey);
    const { session } = owner;
    const json = { command: 'true' };
    const answer = await app.call(`/api/v1/execution-servers/${id}/run`, { method: 'POST', session, json });
    expect(await answer.text()).toContain('"verified"');
    expect(sockets.size).toBe(1);

    const closed = Promise.all([...sockets].map((socket) => once(socket, 'close')));
    const disabledAtMs = performance.now();
    await (await adminClient()).users.update({ id: owner.user.id }, { enabled: false });
    await closed;
    expect(performance.now() - disabledAtMs).toBeLessThan(10_000);
    expect(sockets.size).toBe(0);
  }, 60_000);
});
