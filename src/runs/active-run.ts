import type { Principal } from '../http/principal.ts';
import type { NumberedEvent } from './events.ts';
import { createEventBuffer, type EventBuffer } from './event-buffer.ts';
import type { RunRef } from './run-encryption.ts';

/**
 * Why this process stops a run. `taken`: another process has taken it over. `released`: this process shuts down, and
 * another process may start the queued run.
 */
export type StopReason = 'requested' | 'viewer_left' | 'signed_out' | 'draining' | 'taken' | 'released';

/** A run held by this process, from its acceptance until its exit is stored. */
export interface ActiveRun extends RunRef {
  readonly events: EventBuffer;
  /** The sign-in that started the run; null when the stored run does not decrypt. */
  readonly principal: Principal | null;
  /** Aborted with `cancelled` when the run is stopped. */
  readonly signal: AbortSignal;
  readonly stopReason: StopReason | undefined;
  /** Later calls have no effect: the first reason is kept. */
  stop: (reason: StopReason) => void;
  /** Resolves when the queue allows the run to start. */
  readonly startAllowed: Promise<void>;
  allowStart: () => void;
  readonly stopped: Promise<void>;
}

/** @param storedEvents the events of the run that are already stored. */
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

/** The message stored with a stopped run; null when the owner cancelled it. */
export function stopMessage(reason: StopReason | undefined): string | null {
  if (reason === 'signed_out')
    return 'The run was stopped because the sign-in that started it ended. Sign in and run it again.';
  if (reason === 'draining') return 'The run was stopped because Ops Center was stopped. Run it again.';
  if (reason === 'viewer_left')
    return 'The run was cancelled because its viewer disconnected (on_disconnect).';
  return null;
}
