import type { StreamProgress, Surface } from '../surface.ts';

/** Finds the id of a stored response and records which key made it. */
export interface ResponseRecording {
  /** Records the response when it has an id. Later calls have no effect. */
  record(responseId: string | undefined): void;
  /** Also records the response when the first event that names it passes. */
  follow(progress: StreamProgress): StreamProgress;
  /** Resolves when the response was recorded, or when it has no id so far. */
  whenWritten: () => Promise<void>;
}

/** @param write undefined where the provider does not store the response. */
export function createResponseRecording(
  { storedResponses }: Surface,
  write: ((responseId: string) => Promise<void>) | undefined,
): ResponseRecording {
  let writing: Promise<void> | undefined;
  function record(responseId: string | undefined): void {
    if (responseId !== undefined) writing ??= write?.(responseId);
  }
  return {
    record,
    follow(progress) {
      if (storedResponses === undefined || write === undefined) return progress;
      return {
        add(value) {
          progress.add(value);
          if (writing === undefined) record(storedResponses.findId(value));
        },
        isFinished: () => progress.isFinished(),
      };
    },
    whenWritten: () => writing ?? Promise.resolve(),
  };
}
