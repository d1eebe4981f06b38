import type { ClientChannel } from 'ssh2';

/** Private fields of ssh2's channel that control its window; ssh2 has no public functions for them. */
interface ChannelWindow {
  /** Bytes that the server may still send. */
  incoming: { window: number };
  /** Makes the next `_read` enlarge the window again once half of it is used. */
  _waitChanDrain: boolean;
  _read(): void;
}

/** More bytes than are ever sent: while it is added, ssh2 never enlarges the window. */
const PAUSE_OFFSET = 2 ** 40;

/**
 * Stops enlarging the channel's window: the server may send the rest of it (at most 2 MiB), then has to wait.
 * Pausing the streams is not enough: stdout and stderr share one window, and ssh2 enlarges it as long as one of
 * them is read or nearly empty, even if the other is full.
 */
export function pauseChannelWindow(channel: ClientChannel): void {
  toChannelWindow(channel).incoming.window += PAUSE_OFFSET;
}

/** Reverts {@link pauseChannelWindow}. */
export function resumeChannelWindow(channel: ClientChannel): void {
  const channelWindow = toChannelWindow(channel);
  channelWindow.incoming.window -= PAUSE_OFFSET;
  channelWindow._waitChanDrain = true;
  channelWindow._read();
}

/** True when the server sent more than its window allows; ssh2 does not check this. */
export function hasExceededWindow(channel: ClientChannel): boolean {
  const { window } = toChannelWindow(channel).incoming;
  return window < 0 || (window > PAUSE_OFFSET / 2 && window < PAUSE_OFFSET);
}

function toChannelWindow(channel: ClientChannel): ChannelWindow {
  return channel as unknown as ChannelWindow;
}
