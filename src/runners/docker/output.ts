import type { RunEvent } from '../runner.ts';
import { demultiplex } from './demultiplex.ts';
import { createRecords } from './records.ts';
import { isScriptRecord, type ScriptRecord } from './script.ts';
import type { Session } from './session.ts';

/** How long an engine may still hold the output open, without sending any, after it said that the container ended. */
const DRAIN_MS = 10_000;

/**
 * The program's output as it comes, up to its end; what the script records is taken out and added to `records`.
 * @throws AppError `upstream_malformed`, or what the session's stream was destroyed with.
 */
export async function* readOutput(
  session: Session,
  mark: Buffer,
  records: Set<ScriptRecord>,
): AsyncGenerator<RunEvent, void> {
  let hasStarted = false;
  const notes = createRecords(mark, (text) => {
    if (isScriptRecord(text)) records.add(text);
  });
  for await (const { stream, data } of demultiplex(boundedDrain(session))) {
    const own = stream === 'stderr' ? notes.push(data) : data;
    // The two streams overtake each other: the first output is as good a sign as the record.
    if (!hasStarted && (records.has('start') || own.length > 0)) {
      hasStarted = true;
      records.add('start');
      yield { type: 'phase', phase: 'started' };
    }
    if (own.length > 0) yield { type: 'output', stream, data: own };
  }
  const own = notes.flush();
  if (own.length > 0) yield { type: 'output', stream: 'stderr', data: own };
}

/** Reads the stream; once the container has ended, waiting for more has an end too. Time that the reader takes is not counted. */
async function* boundedDrain({ stream, waiting }: Session): AsyncGenerator<Buffer, void> {
  let hasEnded = false;
  let isAsked = false;
  let timer: NodeJS.Timeout | undefined;
  const rewind = () => {
    clearTimeout(timer);
    if (hasEnded && isAsked)
      timer = setTimeout(() => stream.destroy(new Error('the output did not end')), DRAIN_MS);
  };
  const onEnd = () => {
    hasEnded = true;
    rewind();
  };
  waiting.code.then(onEnd, () => undefined);
  const pieces = (stream as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  try {
    for (;;) {
      isAsked = true;
      rewind();
      const next = await pieces.next();
      isAsked = false;
      rewind();
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    isAsked = false;
    rewind();
    await pieces.return?.();
  }
}
