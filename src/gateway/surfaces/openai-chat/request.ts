import { AppError } from '../../../lib/errors.ts';
import { countMembers, exceedsJsonLimits, measureJson } from '../../../lib/json.ts';
import { foldName } from '../../admission/field-names.ts';
import { findTopLevelMembers } from '../../admission/json-members.ts';

/**
 * Fields that we act on. If one stood twice, we and the upstream could read different ones, and lax readers
 * also take another spelling for the same name; so each may stand once, as written here.
 */
const INTERPRETED_FIELDS = [
  'model',
  'stream',
  'stream_options',
  'max_tokens',
  'max_completion_tokens',
  'n',
  'tools',
  'store',
];

const MAX_MODEL_LENGTH = 256;
/** In a model's name they would only serve to dress up what is logged and shown. */
const CONTROL_CHARACTER = /\p{Cc}/u;

/**
 * A chat completion request: read once, its bytes kept, and nothing else of its size. A parsed body takes many
 * times its bytes, and a request waits long: for the key's look-up, for the upstream, for the client.
 */
export interface ChatRequest {
  /** As the client wrote it; undefined when it is missing. */
  model: string | undefined;
  isStreaming: boolean;
  /** Names of all top-level fields. */
  fieldNames: readonly string[];
  /** Whether an object anywhere in it has two members of one name: readers may then differ on what it says. */
  hasDuplicateMembers: boolean;
  /** Parses the body as it came, for the rules of a shared payer. Keep the value over no waiting. */
  parse(): Readonly<Record<string, unknown>>;
  /**
   * The body with `model` replaced in place (put in front when it was missing); every other byte as it came.
   * The body as it came is forgotten by this, so that there is one copy.
   */
  withModel(model: string): Buffer;
  /** Forgets the body: it has been sent for the last time. */
  forget(): void;
}

/**
 * Reads a request body.
 * @throws AppError `validation_failed` (not a JSON object in UTF-8, a field of the wrong type, a model's name
 *   that is too long or has control characters), `ambiguous_field` (a governed field twice or in another
 *   spelling).
 */
export function readChatRequest(body: Buffer): ChatRequest {
  const { text, value, repeatsMembers } = parseObject(body);
  const { members, afterBrace } = findTopLevelMembers(text);
  const fieldNames = members.map((member) => member.name);
  refuseAmbiguousFields(fieldNames);
  const stream = value['stream'] ?? false;
  if (typeof stream !== 'boolean') throw wrongFieldType('stream', 'true or false');
  const modelMember = members.find((member) => member.name === 'model');
  const modelSpan = modelMember ?? { valueStart: afterBrace, valueEnd: afterBrace };
  return {
    model: readModel(value['model']),
    isStreaming: stream,
    fieldNames,
    hasDuplicateMembers: repeatsMembers,
    ...createBody(body, {
      start: Buffer.byteLength(text.slice(0, modelSpan.valueStart)),
      end: Buffer.byteLength(text.slice(0, modelSpan.valueEnd)),
      prefix: modelMember === undefined ? '"model":' : '',
      suffix: modelMember === undefined && members.length > 0 ? ',' : '',
    }),
  };
}

/** Where the model stands in the body's bytes, and what must stand around it when it was missing. */
interface ModelSpan {
  start: number;
  end: number;
  prefix: string;
  suffix: string;
}

/** Keeps a body's bytes: those of the request as it came, then those with the model that was asked for last. */
function createBody(
  body: Buffer,
  { start, end, prefix, suffix }: ModelSpan,
): Pick<ChatRequest, 'parse' | 'withModel' | 'forget'> {
  let current: { bytes: Buffer; end: number } | undefined = { bytes: body, end };
  function bytes(): { bytes: Buffer; end: number } {
    if (current === undefined) throw new Error('the body was needed after it was forgotten');
    return current;
  }
  return {
    parse: () => JSON.parse(bytes().bytes.toString('utf8')) as Record<string, unknown>,
    withModel(model) {
      const now = bytes();
      const member = Buffer.from(prefix + JSON.stringify(model) + suffix);
      // Mostly it is the model that stands there, and with 32 MB a copy counts.
      if (!now.bytes.subarray(start, now.end).equals(member)) {
        const whole = [now.bytes.subarray(0, start), member, now.bytes.subarray(now.end)];
        current = { bytes: Buffer.concat(whole), end: start + member.length };
      }
      return bytes().bytes;
    },
    forget() {
      current = undefined;
    },
  };
}

function readModel(value: unknown): string | undefined {
  const model = value ?? undefined;
  if (model === undefined) return undefined;
  if (typeof model !== 'string') throw wrongFieldType('model', 'a string');
  if (model.length > MAX_MODEL_LENGTH || CONTROL_CHARACTER.test(model))
    throw wrongFieldType('model', `at most ${MAX_MODEL_LENGTH} characters, none of them a control character`);
  return model;
}

function parseObject(body: Buffer): {
  text: string;
  value: Record<string, unknown>;
  repeatsMembers: boolean;
} {
  const text = decode(body);
  const bounds = measureJson(text);
  if (exceedsJsonLimits(bounds)) {
    throw new AppError('validation_failed', 'The body is nested too deeply, or has too many parts.');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's message quotes the body, so it is not passed on.
    throw notJson();
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new AppError('validation_failed', 'The body must be a JSON object.');
  }
  const repeatsMembers = countMembers(value) !== bounds.members;
  return { text, value: value as Record<string, unknown>, repeatsMembers };
}

function decode(body: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    throw notJson();
  }
}

function notJson(): AppError {
  return new AppError('validation_failed', 'The body is not valid JSON in UTF-8.');
}

function refuseAmbiguousFields(names: readonly string[]): void {
  const seen = new Set<string>();
  for (const name of names) {
    const interpreted = INTERPRETED_FIELDS.find((field) => field === foldName(name));
    if (interpreted === undefined) continue;
    if (interpreted !== name || seen.has(interpreted)) {
      throw new AppError(
        'ambiguous_field',
        `The field "${interpreted}" may stand once only, in this spelling.`,
        {
          errors: [{ path: interpreted, message: 'stands twice, or in another letter case' }],
        },
      );
    }
    seen.add(interpreted);
  }
}

/** 400 for a field of the wrong type. @param expected what it must be, for people. */
export function wrongFieldType(field: string, expected: string): AppError {
  return new AppError('validation_failed', `The field "${field}" must be ${expected}.`, {
    errors: [{ path: field, message: `must be ${expected}` }],
  });
}
