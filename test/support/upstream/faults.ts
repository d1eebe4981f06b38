import { answer, EVENT_STREAM } from './answers.ts';
import type { Answer, ResponseWriter } from './response-writer.ts';
import { frame, protocolOf, wholeFrames, type CompletionOptions } from './frames.ts';

/** Endless responses end with a reset at this size, even when a test does not stop reading. */
const MAX_ENDLESS_BYTES = 512 * 1024 * 1024;
const BLOCK = 'x'.repeat(64 * 1024);

/** Reads the request and never responds. */
function silent(): Answer {
  return (writer) => writer.waitForClose();
}

/** Reads the request's headers and nothing of its body. */
function readsNoBody(): Answer {
  return Object.assign((writer: ResponseWriter) => writer.waitForClose(), { beforeBody: true });
}

/** Sends the status line, then one header every `everyMs`, without an end. */
function slowHeaders(everyMs = 20): Answer {
  return async (writer) => {
    await writer.writeRaw('HTTP/1.1 200 OK\r\n');
    for (let index = 0; ; index += 1) {
      await writer.writeRaw(`x-slow-${index % 100}: ${index}\r\n`);
      await writer.delay(everyMs);
    }
  };
}

/** Headers of `bytes` bytes in total, then a valid response. */
function hugeHeaders(bytes = 1024 * 1024): Answer {
  const count = Math.ceil(bytes / 1024);
  const lines = Array.from({ length: count }, (_, index) => [`x-huge-${index}`, 'h'.repeat(1000)] as const);
  return answer.completion({ headers: lines });
}

/** Sends the headers immediately, then nothing. */
function silentAfterHeaders(contentType = EVENT_STREAM): Answer {
  return (writer) => {
    writer.head(200, { 'content-type': contentType });
    return writer.waitForClose();
  };
}

/** Sends JSON headers immediately, then one byte of an unfinished JSON text every `everyMs`, without an end. */
function slowBody(everyMs = 20): Answer {
  return async (writer) => {
    writer.head(200, { 'content-type': 'application/json' });
    await writer.write('{"id":"');
    for (;;) {
      await writer.delay(everyMs);
      await writer.write('x');
    }
  };
}

/** Valid JSON without an end, as fast as the client reads. */
function endlessJson(status = 200): Answer {
  return (writer) => pour(writer, status, 'application/json', '{"id":"chatcmpl-0","choices":[],"filler":"');
}

/** An event stream with an endless first line. */
function endlessLine(): Answer {
  return (writer) => pour(writer, 200, EVENT_STREAM, 'data: {"choices":[],"filler":"');
}

async function pour(writer: ResponseWriter, status: number, type: string, start: string): Promise<void> {
  writer.head(status, { 'content-type': type });
  await writer.write(start);
  for (let sent = 0; sent < MAX_ENDLESS_BYTES; sent += BLOCK.length) {
    await writer.write(BLOCK);
    // Without a pause, a client in the same process would never run.
    await writer.delay(0);
  }
  await writer.reset();
}

/** A reset after the request's headers, with its body unread. */
function resetBeforeBody(): Answer {
  return Object.assign((writer: ResponseWriter) => writer.reset(), { beforeBody: true });
}

/** A reset after the complete request, before any byte of the response. */
function resetBeforeHeaders(): Answer {
  return (writer) => writer.reset();
}

/** A reset in the middle of the response headers. */
function resetInHeaders(): Answer {
  return async (writer) => {
    await writer.writeRaw('HTTP/1.1 200 OK\r\ncontent-type: text/ev');
    await writer.reset();
  };
}

/** A reset directly after the response headers. */
function resetAfterHeaders(contentType = EVENT_STREAM): Answer {
  return async (writer) => {
    writer.head(200, { 'content-type': contentType });
    await writer.reset();
  };
}

/** A reset in the middle of a JSON body with a declared length. */
function resetInBody(): Answer {
  return async (writer) => {
    writer.head(200, { 'content-type': 'application/json', 'content-length': '1000' });
    await writer.write('{"id":"chatcmpl-0","object":');
    await writer.reset();
  };
}

/** Position of a cut: after a complete frame, in a frame, or in a multi-byte code point. */
type Cut = 'between-frames' | 'in-frame' | 'in-code-point';

interface CutOptions extends CompletionOptions {
  /** Complete frames before the cut, including the role's frame. 2 by default. */
  afterFrames?: number;
  /** `between-frames` by default. */
  cut?: Cut;
}

/** A stream with a reset in the middle. */
function resetInStream(options: CutOptions = {}): Answer {
  return async (writer) => {
    await sendUntilCut(writer, options);
    await writer.reset();
  };
}

/** A stream that ends correctly for HTTP, but without finish reason or `[DONE]`. */
function endsEarly(options: CutOptions = {}): Answer {
  return async (writer) => {
    await sendUntilCut(writer, options);
    await writer.end();
  };
}

/** A stream that is closed by FIN without the last chunk that HTTP requires. */
function hangsUpInStream(options: CutOptions = {}): Answer {
  return async (writer) => {
    await sendUntilCut(writer, options);
    writer.hangUp();
  };
}

async function sendUntilCut(writer: ResponseWriter, options: CutOptions): Promise<void> {
  const { afterFrames = 2, cut = 'between-frames' } = options;
  const text = options.text ?? 'Ein schöner Gruß 🙂 aus Köln';
  const frames = protocolOf(writer.request).frames(writer.request, { ...options, text });
  writer.head(200, { 'content-type': EVENT_STREAM });
  for (const one of frames.slice(0, afterFrames)) await writer.write(one);
  if (cut === 'between-frames') return;
  const next = Buffer.from(
    cut === 'in-frame' ? (frames[afterFrames] ?? '') : frame({ choices: [], filler: 'ö' }),
  );
  const end = cut === 'in-frame' ? Math.floor(next.length / 2) : next.indexOf(Buffer.from('ö')) + 1;
  await writer.write(next.subarray(0, end));
}

/** A complete stream with `[DONE]`, after which the response does not end and the connection stays open. */
function openAfterDone(options: CompletionOptions = {}): Answer {
  return async (writer) => {
    writer.head(200, { 'content-type': EVENT_STREAM });
    for (const one of wholeFrames(writer.request, options)) await writer.write(one);
    await writer.waitForClose();
  };
}

/** A stream with an error event in the middle that ends correctly for HTTP, without `[DONE]`. */
function errorEvent(options: CutOptions & { error?: object } = {}): Answer {
  const error = options.error ?? {
    message: 'The server had an error while processing your request.',
    type: 'server_error',
    param: null,
    code: null,
  };
  return async (writer) => {
    await sendUntilCut(writer, { ...options, cut: 'between-frames' });
    await writer.write(protocolOf(writer.request).errorFrame(error));
    await writer.end();
  };
}

/** Any bytes instead of an HTTP response, then FIN. For framing attacks. */
function raw(bytes: string | Uint8Array): Answer {
  return async (writer) => {
    await writer.writeRaw(bytes);
    writer.hangUp();
  };
}

/** A body shorter than its declared length, then FIN. */
function shortBody(): Answer {
  return raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id":"chat');
}

/** Two contradictory framing headers, as in response smuggling. */
function doubleFraming(): Answer {
  return raw(
    'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n' +
      'transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n',
  );
}

/** Faults of an upstream by name. */
export const fault = {
  silent,
  readsNoBody,
  slowHeaders,
  hugeHeaders,
  silentAfterHeaders,
  slowBody,
  endlessJson,
  endlessLine,
  resetBeforeBody,
  resetBeforeHeaders,
  resetInHeaders,
  resetAfterHeaders,
  resetInBody,
  resetInStream,
  endsEarly,
  hangsUpInStream,
  openAfterDone,
  errorEvent,
  raw,
  shortBody,
  doubleFraming,
};
