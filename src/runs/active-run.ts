import type { Principal } from '../http/principal.ts';
import type { NumberedEvent } from './events.ts';
import { createEventBuffer, type EventBuffer } from './event-buffer.ts';
import type { RunRef } from './run-encryption.ts';

/**
 * Why a run is stopped from this side. `taken`: it is another process's now. `released`: this process stops, and
 * the run, which has not begun, is left to others.
 */
export type StopReason = 'requested' | 'viewer_left' | 'signed_out' | 'draining' | 'taken' | 'released';

/** A run that this process has, from its acceptance until its end is stored. */
export interface ActiveRun extends RunRef {
  readonly events: EventBuffer;
  /** The sign-in that it was started under; null for what is only cleared away. */
  readonly principal: Principal | null;
  /** Aborted with `cancelled` when the run is stopped. */
  readonly signal: AbortSignal;
  readonly stopReason: StopReason | undefined;
  /** Stops it; the first reason holds. */
  stop: (reason: StopReason) => void;
  /** Resolves when the queue lets it begin. */
  readonly startAllowed: Promise<void>;
  allowStart: () => void;
  /** Resolves when it is stopped. */
  readonly stopped: Promise<void>;
}

/** Builds it. @param storedEvents its events that are stored already. */
export function createActiveRun(
  { id, owner }: RunRef,
  principal: Principal | null,
  storedEvents: readonly NumberedEvent[] = [],
): ActiveRun {
  const controller = new AbortController();
  const startAllowed = Promise.withResolvers<undefined>();
  const stopped = Promise.withResolvers<undefined>();
  let stopReason: StopReason | undefined;
  return {
    id,
    owner,
    events: createEventBuffer(storedEvents),
    principal,
    signal: controller.signal,
    get stopReason() {
      return stopReason;
    },
    stop(reason) {
      if (stopReason !== undefined) return;
      stopReason = reason;
      controller.abort('cancelled');
      stopped.resolve(undefined);
    },
    startAllowed: startAllowed.promise,
    allowStart: () => {
      startAllowed.resolve(undefined);
    },
    stopped: stopped.promise,
  };
}

/** What the history says of a run that was stopped, where that was not its owner's own doing. */
export function stopMessage(reason: StopReason | undefined): string | null {
  if (reason === 'signed_out')
    return 'The sign-in that this run was started under has ended, and the run with it.';
  if (reason === 'draining') return 'Ops Center was stopped, and the run with it. Run it again.';
  if (reason === 'viewer_left') return 'Nobody was watching any more, as asked for with on_disconnect.';
  return null;
}
