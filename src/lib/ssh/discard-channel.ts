import type { ClientChannel } from 'ssh2';

/** Closes a channel and drains it; ssh2 releases a channel only after it was read to the end. */
export function discardChannel(channel: ClientChannel): void {
  channel.on('error', () => undefined);
  channel.close();
  channel.resume();
  channel.stderr.resume();
}
