import type { ClientChannel } from 'ssh2';

/** What ssh2 keeps of a channel's window, which it has no functions for. */
interface ChannelWindow {
  /** How much the server may still send. */
  incoming: { window: number };
  /** Makes the next `_read` open the window again, where it is half used up. */
  _waitChanDrain: boolean;
  _read(): void;
}

/** More than is ever sent: with it, a window never looks used up. */
const PAUSE_OFFSET = 2 ** 40;

/**
 * Stops opening the channel's window: the server may send what is left of it (2 MiB at most), then has to wait.
 * Pausing the streams would not do: the two share one window, which ssh2 opens again for the one as long as it
 * is read or nearly empty, however much waits in the other.
 */
export function pauseChannelWindow(channel: ClientChannel): void {
  toChannelWindow(channel).incoming.window += PAUSE_OFFSET;
}

/** Ends what {@link pauseChannelWindow} began. */
export function resumeChannelWindow(channel: ClientChannel): void {
  const windowed = toChannelWindow(channel);
  windowed.incoming.window -= PAUSE_OFFSET;
  windowed._waitChanDrain = true;
  windowed._read();
}

/** True when a server has sent more than it may, which ssh2 does not mind. */
export function hasExceededWindow(channel: ClientChannel): boolean {
  const { window } = toChannelWindow(channel).incoming;
  return window < 0 || (window > PAUSE_OFFSET / 2 && window < PAUSE_OFFSET);
}

function toChannelWindow(channel: ClientChannel): ChannelWindow {
  return channel as unknown as ChannelWindow;
}
