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
  /** How a key is tested. */
  keyTest: KeyTest;
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

/** One call that succeeds with a good key only. It goes to the address that chats go to. */
export interface KeyTest {
  method: 'GET' | 'POST';
  /** Behind the base URL, e.g. `/models`. */
  path: string;
  /** Sent as JSON. */
  body?: Readonly<Record<string, unknown>>;
  /** The headers that carry the key, and what must stand beside it; names in lower case. */
  authorize: (secret: string) => Record<string, string>;
  /** True when the owner pays the provider for a test that succeeds. */
  billed: boolean;
  /** True when a body that came with 2xx is what the call asks for; anything else is no proof. */
  isExpectedBody: (body: unknown) => boolean;
  /** Answers of this provider that mean something else than `readAnswer` takes them for; undefined for all others. */
  findOutcome?: (answer: KeyTestResponse) => KeyTestOutcome | undefined;
}

/** What a provider answered to a test. */
export interface KeyTestResponse {
  status: number;
  /** Parsed JSON; undefined when there is none, or it cannot be read. */
  body: unknown;
}

/** What an answer says of the key. */
export interface KeyTestOutcome {
  status: 'valid' | 'invalid' | 'forbidden' | 'no_credit' | 'rate_limited' | 'error';
  /** For people, in our words: never the provider's text, which may hold anything. */
  message: string;
}

/** Lists the models: free, and refused without a good key by most providers that list per account. */
export const LIST_MODELS: KeyTest = {
  method: 'GET',
  path: '/models',
  authorize: bearerHeaders,
  billed: false,
  isExpectedBody: isModelList,
};

/** Asks for one token: for providers whose list of models is public, or not documented to need a key. */
export function completeOneToken(model: string): KeyTest {
  return {
    method: 'POST',
    path: '/chat/completions',
    body: { model, messages: [{ role: 'user', content: '1' }], max_tokens: 1 },
    authorize: bearerHeaders,
    billed: true,
    isExpectedBody: (body) => isObject(body) && Array.isArray(body['choices']) && body['choices'].length > 0,
  };
}

/** Builds a provider that speaks OpenAI's protocol; the defaults are those of a hosted service. */
export function openAiCompatible(
  definition: Pick<Provider, 'id' | 'name' | 'baseUrl' | 'docsUrl' | 'key'> & Partial<Provider>,
): Provider {
  return {
    kind: 'llm',
    protocol: 'openai',
    keyTest: LIST_MODELS,
    requiresEndpoint: false,
    requiresKey: true,
    modelPatterns: [],
    models: [],
    localOnly: false,
    ...definition,
  };
}

function bearerHeaders(secret: string): Record<string, string> {
  return { authorization: `Bearer ${secret}` };
}

/** True for a list of models in OpenAI's shape; Ollama writes `null` for a list without any. */
function isModelList(body: unknown): boolean {
  if (!isObject(body)) return false;
  const { data } = body;
  return Array.isArray(data) ? isModelArray(data) : data === null && body['object'] === 'list';
}

/** True for an array in which each entry has the id of a model. */
export function isModelArray(list: unknown): boolean {
  return Array.isArray(list) && list.every((entry) => isObject(entry) && typeof entry['id'] === 'string');
}

/** True for a JSON object. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
