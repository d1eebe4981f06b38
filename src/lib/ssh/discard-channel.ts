import type { ClientChannel } from 'ssh2';

/** True after this side has closed the channel, until the server has done so as well. */
export function isClosing(channel: ClientChannel): boolean {
  // A private field of ssh2's channel, which has no public one.
  return (channel as unknown as { outgoing: { state: string } }).outgoing.state === 'closing';
}

/** Closes a channel and drains it; ssh2 releases a channel only after it was read to the end. */
export function discardChannel(channel: ClientChannel): void {
  channel.on('error', () => undefined);
  channel.close();
  channel.resume();
  channel.stderr.resume();
}
