/** A dialect of the wire between us and an upstream. */
type Protocol = 'openai';

/**
 * What the product knows of a provider. A provider is one file in this folder and one line in
 * `index.ts`; most are plain data. It knows neither Express nor any other provider.
 */
export interface Provider {
  /** Stable id on the wire and in storage: `[a-z]+`. */
  id: string;
  name: string;
  kind: 'llm' | 'tool' | 'git';
  protocol: Protocol;
  /** What stands before `/chat/completions`; null where each key brings its own endpoint. */
  baseUrl: string | null;
  /** Where people get a key. */
  docsUrl: string | null;
  key: KeyFormat;
  /** True when a key must name the endpoint that it is for. */
  requiresEndpoint: boolean;
  /** True when there is nothing to do without a key. */
  requiresKey: boolean;
  /** Models that go to this provider without a prefix. Matched against the whole name. */
  modelPatterns: readonly RegExp[];
  /** Models to show where the live list cannot be had. */
  models: readonly string[];
  /** Offered in local mode only. */
  localOnly: boolean;
}

interface KeyFormat {
  /** For people, e.g. `sk-...`; null when there is no common form. */
  hint: string | null;
  /** What a key of this provider looks like in full; anything else is `invalid_key_format`. */
  pattern: RegExp;
  /** The public prefix that a preview may show; `''` when there is none. */
  prefix: string;
}

/** Builds a provider that speaks OpenAI's protocol; the defaults are those of a hosted service. */
export function openAiCompatible(
  own: Pick<Provider, 'id' | 'name' | 'baseUrl' | 'docsUrl' | 'key'> & Partial<Provider>,
): Provider {
  return {
    kind: 'llm',
    protocol: 'openai',
    requiresEndpoint: false,
    requiresKey: true,
    modelPatterns: [],
    models: [],
    localOnly: false,
    ...own,
  };
}
