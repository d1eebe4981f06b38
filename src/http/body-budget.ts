import type { Response } from 'express';
import { AppError, requestTimeout } from '../lib/errors.ts';
import { onResponseClosed } from './on-response-closed.ts';
import type { UploadPace } from './upload-pace.ts';

/** Memory held for the bodies of one request and of its response. Released when the response is closed. */
export interface BodyReservation {
  /** Whose requests share a limit; those without a sign-in share one. */
  readonly userId: string;
  /**
   * Begins to count the body of the request as it arrives. Its declared size is compared with the limits and reserves
   * nothing, so that a client which declares a large body and sends nothing does not block others.
   * @param pace the slowest uploads of those who hold as much are ended when the memory is full.
   * @param end ends this upload with an error.
   * @throws what `add` throws.
   */
  beginUpload(declaredBytes: number, pace: UploadPace, end: (error: AppError) => void): Upload;
  /**
   * Counts bytes of a response as they arrive from a provider.
   * @throws AppError `busy` (503) when the limit of the process is reached, `rate_limited` (429) when the limit of
   *   the user is reached; both with `Retry-After` in seconds.
   */
  add(bytes: number): void;
  /** Sets the reservation to these bytes once a body was read and parsed. */
  keepOnly(bytes: number): void;
}

/** A body that is being received. Disposal ends it: the body is complete or was given up, and stays counted. */
export interface Upload extends Disposable {
  /** @throws what `BodyReservation.add` throws. */
  received(bytes: number): void;
}

export interface BodyBudget {
  createReservation(userId: string, response: Response): BodyReservation;
}

/** Memory for all bodies of requests and responses in this process. */
const MAX_TOTAL_BYTES = 512 * 1024 * 1024;
/** One user cannot block all others, and the largest body still fits while it is read. */
const MAX_BYTES_PER_USER = MAX_TOTAL_BYTES / 3;
/**
 * From here on, a user gets memory for one request only. The largest body needs a quarter of the memory while it is
 * read, so that three users together can never take the last quarter from all others.
 */
const MAX_TOTAL_BYTES_FOR_FURTHER_REQUESTS = MAX_TOTAL_BYTES / 2;
/**
 * Memory per body byte until the body is parsed: chunks, buffer, text, parsed value and garbage not yet collected.
 * Measured as resident memory with 6 to 12 concurrent bodies of 32 MB: 3.0 to 4.5 bytes, depending on the content.
 * After parsing only the bytes themselves count.
 */
const MEMORY_PER_UNPARSED_BYTE = 4;
/** Not counted in each request: small bodies are served however full the memory is. Open requests bound their number. */
const MAX_UNCOUNTED_BYTES = 64 * 1024 * MEMORY_PER_UNPARSED_BYTE;

const RETRY_AFTER_HEADERS = { 'retry-after': '1' };

/** The state of one reservation. */
interface Holding {
  userId: string;
  /** Memory of its bodies, without what is not counted. */
  countedBytes: number;
  memoryBytes: number;
  /** Of the body that is being received. */
  upload: { pace: UploadPace; end: (error: AppError) => void } | undefined;
  isClosed: boolean;
}

/** Limits the memory of bodies, for any number of clients, any upload speed and clients that do not read. */
export function createBodyBudget(): BodyBudget {
  const totals = createTotals();
  const uploading = new Set<Holding>();

  /**
   * Ends uploads, the slowest first, until the memory suffices or none is slower. None is ended of a user who holds less
   * memory than the user of this one: who fills the memory could otherwise end the small uploads of all others.
   */
  function endSlowerUploads(holding: Holding, missingBytes: () => number): void {
    const speed = holding.upload?.pace.speed() ?? Infinity;
    const userBytes = totals.ofUser(holding.userId);
    const slower = [...uploading]
      .filter((other) => other !== holding && other.countedBytes > 0)
      .filter((other) => totals.ofUser(other.userId) >= userBytes)
      .map((other) => ({ other, speed: other.upload?.pace.speed() ?? Infinity }))
      .filter((candidate) => candidate.speed < speed)
      .sort((a, b) => a.speed - b.speed);
    for (const { other } of slower) {
      if (missingBytes() <= 0) return;
      uploading.delete(other);
      totals.set(other, 0);
      other.isClosed = true;
      other.upload?.end(uploadEnded());
    }
  }

  /** @param canEndUploads false for a body that was only declared. */
  function assertFits(holding: Holding, bytes: number, canEndUploads: boolean): void {
    const added = countBytes(holding.memoryBytes + bytes) - holding.countedBytes;
    if (added <= 0) return;
    const userBytes = totals.ofUser(holding.userId);
    if (userBytes + added > MAX_BYTES_PER_USER) throw userIsFull();
    const isOnlyRequest = userBytes === holding.countedBytes;
    const limit = isOnlyRequest ? MAX_TOTAL_BYTES : MAX_TOTAL_BYTES_FOR_FURTHER_REQUESTS;
    const missingBytes = () => totals.ofAll() + added - limit;
    if (missingBytes() <= 0) return;
    const endable = canEndUploads ? 0 : sumCounted(uploading);
    if (canEndUploads) endSlowerUploads(holding, missingBytes);
    if (missingBytes() - endable > 0) throw processIsFull();
  }

  function add(holding: Holding, bytes: number): void {
    if (holding.isClosed) return;
    assertFits(holding, bytes * MEMORY_PER_UNPARSED_BYTE, true);
    totals.set(holding, holding.memoryBytes + bytes * MEMORY_PER_UNPARSED_BYTE);
  }

  function beginUpload(holding: Holding, pace: UploadPace, end: (error: AppError) => void): Upload {
    holding.upload = { pace, end };
    uploading.add(holding);
    return {
      received(bytes) {
        pace.received(bytes);
        add(holding, bytes);
      },
      [Symbol.dispose]() {
        uploading.delete(holding);
        holding.upload = undefined;
      },
    };
  }

  return {
    createReservation(userId, response) {
      const holding: Holding = {
        ...{ userId, countedBytes: 0, memoryBytes: 0, upload: undefined, isClosed: false },
      };
      onResponseClosed(response, () => {
        totals.set(holding, 0);
        holding.isClosed = true;
      });
      return {
        userId,
        beginUpload(declaredBytes, pace, end) {
          assertFits(holding, declaredBytes * MEMORY_PER_UNPARSED_BYTE, false);
          return beginUpload(holding, pace, end);
        },
        add: (bytes) => {
          add(holding, bytes);
        },
        keepOnly(bytes) {
          if (!holding.isClosed) totals.set(holding, bytes);
        },
      };
    },
  };
}

/** The counted memory of all holdings and of each user. */
function createTotals() {
  const byUser = new Map<string, number>();
  let total = 0;
  return {
    ofAll: () => total,
    ofUser: (userId: string) => byUser.get(userId) ?? 0,
    set(holding: Holding, memoryBytes: number): void {
      const countedBytes = countBytes(memoryBytes);
      const change = countedBytes - holding.countedBytes;
      Object.assign(holding, { memoryBytes, countedBytes });
      total += change;
      const userTotal = (byUser.get(holding.userId) ?? 0) + change;
      if (userTotal === 0) byUser.delete(holding.userId);
      else byUser.set(holding.userId, userTotal);
    },
  };
}

function countBytes(memoryBytes: number): number {
  return Math.max(0, memoryBytes - MAX_UNCOUNTED_BYTES);
}

function sumCounted(holdings: Iterable<Holding>): number {
  return [...holdings].reduce((sum, { countedBytes }) => sum + countedBytes, 0);
}

function userIsFull(): AppError {
  const detail = 'Your open requests together reach the size limit. Wait until one of them has finished.';
  return new AppError('rate_limited', detail, { headers: RETRY_AFTER_HEADERS });
}

function processIsFull(): AppError {
  const detail = 'This server has no memory for a body of this size right now. Try again shortly.';
  return new AppError('busy', detail, { headers: RETRY_AFTER_HEADERS });
}

function uploadEnded(): AppError {
  return requestTimeout(
    'This server has no memory for more bodies, and yours arrived most slowly. Try again shortly.',
  );
}
