import type { Response } from 'undici';

/** A received server-sent event of a run. */
export interface ReceivedRunEvent {
  /** The `event:` and `id:` lines. */
  event: string;
  id: number;
  data: {
    run_id: string;
    seq: number;
    type: string;
    phase?: string;
    position?: number;
    stream?: 'stdout' | 'stderr';
    encoding?: 'utf8' | 'base64';
    data?: string;
    dropped_bytes?: number;
    cause?: string;
    code?: number | null;
    cleanup?: string;
    message?: string | null;
    duration_ms?: number;
  };
}

/** Yields the events of a response as they arrive, without comments. */
export async function* readRunEvents(response: Response): AsyncGenerator<ReceivedRunEvent, void> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of response.body ?? []) {
    rest += decoder.decode(chunk as Uint8Array, { stream: true });
    const frames = rest.split('\n\n');
    rest = frames.pop() ?? '';
    for (const frame of frames) if (!frame.startsWith(':')) yield read(frame);
  }
}

export async function readAllRunEvents(response: Response): Promise<ReceivedRunEvent[]> {
  const seen: ReceivedRunEvent[] = [];
  for await (const one of readRunEvents(response)) seen.push(one);
  return seen;
}

function read(frame: string): ReceivedRunEvent {
  const [event = '', id = '', data = ''] = frame.split('\n');
  return {
    event: event.replace('event: ', ''),
    id: Number(id.replace('id: ', '')),
    data: JSON.parse(data.replace('data: ', '')) as ReceivedRunEvent['data'],
  };
}

/** Joins the output of one stream. */
export function joinOutput(
  seen: readonly ReceivedRunEvent[],
  stream: 'stdout' | 'stderr' = 'stdout',
): string {
  const pieces = seen.flatMap(({ data }) =>
    data.type === 'output' && data.stream === stream ? [Buffer.from(data.data ?? '', data.encoding)] : [],
  );
  return Buffer.concat(pieces).toString();
}
