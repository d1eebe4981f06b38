import type { Readable } from 'node:stream';

/** The longest report is "interpreter". */
const MAX_REPORT_BYTES = 64;
/** Two lines of about 300 bytes. */
const MAX_STATUS_BYTES = 4_096;
/** From the start of bwrap to the start of the program. Takes some milliseconds on an idle machine. */
const START_TIMEOUT_MS = 60_000;

const REPORTS = ['started', 'folder', 'interpreter'] as const;

/** `failed`: bwrap could not create the sandbox, or the report is invalid. `late`: no report within 60 s. */
export type StartReport = (typeof REPORTS)[number] | 'failed' | 'late';

/**
 * Reads one line: bwrap keeps the stream open as long as the program runs. The stream is closed after 64 bytes, because
 * its content could be anything if the sandbox failed.
 * @param kill ends a sandbox without a valid report.
 */
export async function readStartReport(report: Readable, kill: () => void): Promise<StartReport> {
  let text = '';
  const tooLate = new AbortController();
  const timer = setTimeout(() => {
    tooLate.abort();
    report.destroy();
  }, START_TIMEOUT_MS);
  try {
    for await (const chunk of report) {
      text += (chunk as Buffer).toString('latin1', 0, MAX_REPORT_BYTES);
      if (text.includes('\n') || text.length >= MAX_REPORT_BYTES) break;
    }
  } catch {
    // Destroyed at the end of the time, or broken: both have no valid report.
  } finally {
    clearTimeout(timer);
  }
  const valid = REPORTS.find((name) => text === `${name}\n`);
  if (valid !== undefined) return valid;
  kill();
  return tooLate.signal.aborted ? 'late' : 'failed';
}

/** A line of `bwrap --json-status-fd`: at the start the pid of the first process, at the end the exit code. */
export interface BwrapStatusLine {
  'child-pid'?: number;
  'exit-code'?: number;
}

/** @throws Error when the status is longer than that of bwrap, or is not JSON. */
export async function* readStatusLines(stream: Readable): AsyncGenerator<BwrapStatusLine, void> {
  let remainingBytes = MAX_STATUS_BYTES;
  let line = '';
  for await (const chunk of stream) {
    remainingBytes -= (chunk as Buffer).length;
    if (remainingBytes < 0) throw new Error('the status of bwrap is too long');
    const lines = `${line}${(chunk as Buffer).toString('latin1')}`.split('\n');
    line = lines.pop() ?? '';
    for (const complete of lines) yield JSON.parse(complete) as BwrapStatusLine;
  }
}
