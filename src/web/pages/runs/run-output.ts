import type { StreamedRunEvent } from '../../api/run-events.ts';
import { createLineParser, isPngLine, toPlainText, type OutputSpan } from './output-text.ts';

/** What the page keeps: programs print more than a browser draws quickly. */
const MAX_LINES = 20_000;
/** Lines that are drawn as one element, which the browser skips while it is out of sight. */
const BLOCK_LINES = 200;
/** A longer line is cut: drawing it takes seconds. An image may be longer. */
const MAX_LINE_LENGTH = 20_000;
const MAX_IMAGE_LENGTH = 4_000_000;

export interface OutputLine {
  stream: 'stdout' | 'stderr';
  /** Without colours. */
  text: string;
  spans: readonly OutputSpan[];
  /** A data URL, of a line that is an image. */
  image: string | undefined;
  /** Bytes that were left out here, in place of text. */
  dropped: { bytes: number; stream: string } | undefined;
}

export interface OutputBlock {
  /** Number of its first line, from 0 on. */
  start: number;
  lines: readonly OutputLine[];
}

type Exit = Extract<StreamedRunEvent, { type: 'exit' }>;

export interface RunOutput {
  phase: Extract<StreamedRunEvent, { type: 'phase' }> | undefined;
  /** The last block changes while output arrives; the others stay the same objects. */
  blocks: readonly OutputBlock[];
  /** Lines before the first block, which are not kept. */
  hiddenLines: number;
  exit: Exit | undefined;
}

interface StreamState {
  parse: (line: string) => OutputSpan[];
  decoder: TextDecoder;
  /** The line that has no end yet. */
  rest: string;
}

/** Collects events into lines. `read` returns a snapshot that shares all blocks that did not change. */
export function createRunOutput(): { add(event: StreamedRunEvent): void; read(): RunOutput } {
  const streams = { stdout: createStream(), stderr: createStream() };
  let blocks: OutputBlock[] = [];
  let phase: RunOutput['phase'];
  let exit: Exit | undefined;

  function addLine(line: OutputLine): void {
    const last = blocks.at(-1);
    if (last === undefined || last.lines.length >= BLOCK_LINES) {
      const start = last === undefined ? 0 : last.start + last.lines.length;
      blocks = [...blocks.slice(-MAX_LINES / BLOCK_LINES), { start, lines: [line] }];
    } else blocks = [...blocks.slice(0, -1), { start: last.start, lines: [...last.lines, line] }];
  }

  function addText(name: 'stdout' | 'stderr', text: string): void {
    const stream = streams[name];
    const lines = (stream.rest + text).split('\n');
    stream.rest = lines.pop() ?? '';
    for (const line of lines) addLine(toLine(name, line, stream.parse));
  }

  return {
    add(event) {
      if (event.type === 'phase') phase = event;
      else if (event.type === 'output') {
        const { decoder } = streams[event.stream];
        addText(
          event.stream,
          event.encoding === 'utf8' ? event.data : decoder.decode(toBytes(event.data), { stream: true }),
        );
      } else if (event.type === 'truncated') {
        const dropped = { bytes: event.dropped_bytes, stream: event.stream };
        addLine({ stream: 'stdout', text: '', spans: [], image: undefined, dropped });
      } else {
        exit = event;
        // The last line of a program often has no line end.
        for (const name of ['stdout', 'stderr'] as const) if (streams[name].rest !== '') addText(name, '\n');
      }
    },
    read: () => ({ phase, blocks, hiddenLines: blocks[0]?.start ?? 0, exit }),
  };
}

function createStream(): StreamState {
  return { parse: createLineParser(), decoder: new TextDecoder(), rest: '' };
}

function toLine(stream: OutputLine['stream'], line: string, parse: StreamState['parse']): OutputLine {
  if (line.length <= MAX_IMAGE_LENGTH && isPngLine(line))
    return { stream, text: line, spans: [], image: line.trim(), dropped: undefined };
  const shown = line.length > MAX_LINE_LENGTH ? `${line.slice(0, MAX_LINE_LENGTH)}…` : line;
  return { stream, text: toPlainText(shown), spans: parse(shown), image: undefined, dropped: undefined };
}

function toBytes(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
