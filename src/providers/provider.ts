/** A protocol of LLM APIs: OpenAI's chat completions, embeddings and Responses, and Anthropic's Messages. */
export type SurfaceName = 'chat' | 'embeddings' | 'responses' | 'messages';

/**
 * The definition of a provider. A provider is one file in this folder and one line in `index.ts`; most are
 * plain data. A provider file imports neither Express nor another provider.
 */
export interface Provider {
  /** Stable id on the wire and in storage: `[a-z]+`. */
  id: string;
  name: string;
  kind: 'llm' | 'tool' | 'git';
  /** The native protocols of the provider's API, each with its path after the base URL. */
  surfaces: Readonly<Partial<Record<SurfaceName, string>>>;
  /** True when streamed chat completions report their usage where `stream_options.include_usage` asks for it. */
  reportsStreamUsage: boolean;
  /** The base URL in front of the paths of `surfaces`; null where each key has its own endpoint. */
  baseUrl: string | null;
  /** The page where users get a key. */
  docsUrl: string | null;
  key: KeyFormat;
  /** Returns the headers that carry the key in calls of a protocol; names in lower case. */
  authorize: (secret: string, surface: SurfaceName) => Record<string, string>;
  keyTest: KeyTest;
  /** True when a key must be stored together with its endpoint. */
  requiresEndpoint: boolean;
  /** True when the provider cannot be used without a key. */
  requiresKey: boolean;
  /** Models that are routed to this provider without a prefix. Matched against the whole name. */
  modelPatterns: readonly RegExp[];
  /** Models to show where the provider's own list is not available. */
  models: readonly string[];
  /** Offered in local mode only. */
  isLocalOnly: boolean;
}

interface KeyFormat {
  /** Shown to users, e.g. `sk-...`; null when keys have no common format. */
  hint: string | null;
  /** Matches a whole key of this provider; anything else is `invalid_key_format`. */
  pattern: RegExp;
  /** The public prefix that a preview may show; `''` when there is none. */
  prefix: string;
}

/** One call that succeeds only with a valid key. It uses the same base URL as chats. */
export interface KeyTest {
  method: 'GET' | 'POST';
  /** Appended to the base URL, e.g. `/models`. */
  path: string;
  /** Sent as JSON. */
  body?: Readonly<Record<string, unknown>>;
  /** Returns the headers that carry the key and those required with it; names in lower case. */
  authorize: (secret: string) => Record<string, string>;
  /** True when the provider charges the owner for a successful test. */
  billed: boolean;
  /** True when the body of a 2xx response is what the call asks for. Any other body does not prove the key. */
  isExpectedBody: (body: unknown) => boolean;
  /** The outcome of responses that `toKeyTestOutcome` would misread for this provider; undefined for all others. */
  findOutcome?: (response: KeyTestResponse) => KeyTestOutcome | undefined;
}

/** The provider's response to a key test. */
export interface KeyTestResponse {
  status: number;
  /** Parsed JSON; undefined when the body is empty or not JSON. */
  body: unknown;
}

/** What a response shows about the key. */
export interface KeyTestOutcome {
  status: 'valid' | 'invalid' | 'forbidden' | 'no_credit' | 'rate_limited' | 'error';
  /** Shown to users. Never contains the provider's text, which may contain anything. */
  message: string;
}

/** The path of each protocol after the base URL. */
export const SURFACE_PATHS = {
  chat: '/chat/completions',
  embeddings: '/embeddings',
  responses: '/responses',
  messages: '/messages',
} as const satisfies Record<SurfaceName, string>;

/** Lists the models: with OpenAI's protocol and with Anthropic's. */
export const MODELS_PATH = '/models';

/** Lists the models. The call is free, and most providers that list models per account require a valid key for it. */
export const LIST_MODELS: KeyTest = {
  method: 'GET',
  path: MODELS_PATH,
  authorize: bearerHeaders,
  billed: false,
  isExpectedBody: isModelList,
};

/** Requests one token, for providers whose model list is public or not documented to require a key. */
export function completeOneToken(model: string): KeyTest {
  return {
    method: 'POST',
    path: SURFACE_PATHS.chat,
    body: { model, messages: [{ role: 'user', content: '1' }], max_tokens: 1 },
    authorize: bearerHeaders,
    billed: true,
    isExpectedBody: (body) => isObject(body) && Array.isArray(body['choices']) && body['choices'].length > 0,
  };
}

/** Creates a provider with OpenAI's chat completions. The defaults are those of a hosted service. */
export function openAiCompatible(
  definition: Pick<Provider, 'id' | 'name' | 'baseUrl' | 'docsUrl' | 'key'> & Partial<Provider>,
): Provider {
  return {
    kind: 'llm',
    authorize: bearerHeaders,
    keyTest: LIST_MODELS,
    requiresEndpoint: false,
    requiresKey: true,
    reportsStreamUsage: false,
    modelPatterns: [],
    models: [],
    isLocalOnly: false,
    ...definition,
    surfaces: { chat: SURFACE_PATHS.chat, ...definition.surfaces },
  };
}

/** The authorization of OpenAI's protocols. */
export function bearerHeaders(secret: string): Record<string, string> {
  return { authorization: `Bearer ${secret}` };
}

/** True for a model list in OpenAI's shape. Ollama sends `data: null` for an empty list. */
function isModelList(body: unknown): boolean {
  if (!isObject(body)) return false;
  const { data } = body;
  return Array.isArray(data) ? isModelArray(data) : data === null && body['object'] === 'list';
}

/** True for an array in which every entry has an `id`. */
export function isModelArray(value: unknown): boolean {
  return Array.isArray(value) && value.every((entry) => isObject(entry) && typeof entry['id'] === 'string');
}

/** True for a JSON object. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
