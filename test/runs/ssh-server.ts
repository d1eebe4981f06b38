import { sshHosts } from '../support/hosts.ts';
import type { ServerClient } from '../support/servers.ts';

/** The account on the real SSH server that needs no jump server. */
export function sshServerConfig(): Record<string, unknown> {
  const { plain, user, password } = sshHosts();
  const { host, port } = plain;
  return { host, port, username: user, auth_method: 'password', password };
}

/** Adds this account as a server of a user, ready for runs. @returns the server's id. */
export async function addSshServer(client: ServerClient): Promise<string> {
  const { id } = await client.add({ name: 'A machine', connection_config: sshServerConfig() });
  await client.confirm(id, sshHosts().plain.hostKey);
  return id;
}
