import type { CompletionOptions } from './frames.ts';
import type { RecordedRequest } from './recorded-request.ts';

/** A field of the body; undefined when the body is not JSON. */
export function fieldOf(request: RecordedRequest, name: string): unknown {
  try {
    return request.json()[name];
  } catch {
    return undefined;
  }
}

export function textOf(options: CompletionOptions): string {
  return options.text ?? 'Hello from the upstream.';
}
