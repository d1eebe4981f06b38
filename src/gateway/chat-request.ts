import { AppError } from '../lib/errors.ts';
import { countMembers, exceedsJsonBounds, measureJson } from '../lib/json-bounds.ts';
import { topLevelMembers } from './json-members.ts';

/**
 * Fields that we act on. If one stood twice, we and the upstream could read different ones, and Go and
 * .NET upstreams also take another letter case for the same name; so each may stand once, as written here.
 */
const GOVERNED_FIELDS = [
  'model',
  'stream',
  'stream_options',
  'max_tokens',
  'max_completion_tokens',
  'n',
  'tools',
  'store',
];

/** A chat completion request: read once, its bytes kept. */
export interface ChatRequest {
  /** As the client wrote it; undefined when it is missing. */
  model: string | undefined;
  stream: boolean;
  /** Names of all top-level fields. */
  fieldNames: readonly string[];
  /** The parsed body, for the rules of a shared payer. */
  value: Readonly<Record<string, unknown>>;
  /** Whether an object anywhere in it has two members of one name: readers may then differ on what it says. */
  repeatsMembers: boolean;
  /** The body with `model` replaced in place (put in front when it was missing); every other byte as it came. */
  withModel(model: string): Buffer;
}

/**
 * Reads a request body.
 * @throws AppError `validation_failed` (not a JSON object in UTF-8, or a field of the wrong type),
 *   `ambiguous_field` (a governed field twice or in another spelling).
 */
export function readChatRequest(body: Buffer): ChatRequest {
  const { text, value, repeatsMembers } = parseObject(body);
  const { members, afterBrace } = topLevelMembers(text);
  const fieldNames = members.map((member) => member.name);
  refuseAmbiguity(fieldNames);
  const model = value['model'] ?? undefined;
  const stream = value['stream'] ?? false;
  if (model !== undefined && typeof model !== 'string') throw wrongType('model', 'a string');
  if (typeof stream !== 'boolean') throw wrongType('stream', 'true or false');
  const modelMember = members.find((member) => member.name === 'model');
  return {
    model,
    stream,
    fieldNames,
    value,
    repeatsMembers,
    withModel(name) {
      const literal = JSON.stringify(name);
      if (modelMember !== undefined) {
        return Buffer.from(
          text.slice(0, modelMember.valueStart) + literal + text.slice(modelMember.valueEnd),
        );
      }
      const separator = members.length > 0 ? ',' : '';
      return Buffer.from(
        `${text.slice(0, afterBrace)}"model":${literal}${separator}${text.slice(afterBrace)}`,
      );
    },
  };
}

function parseObject(body: Buffer): {
  text: string;
  value: Record<string, unknown>;
  repeatsMembers: boolean;
} {
  const text = decode(body);
  const bounds = measureJson(text);
  if (exceedsJsonBounds(bounds)) {
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

function refuseAmbiguity(names: readonly string[]): void {
  const seen = new Set<string>();
  for (const name of names) {
    const governed = GOVERNED_FIELDS.find((field) => field === name.toLowerCase());
    if (governed === undefined) continue;
    if (governed !== name || seen.has(governed)) {
      throw new AppError(
        'ambiguous_field',
        `The field "${governed}" may stand once only, in this spelling.`,
        {
          errors: [{ path: governed, message: 'stands twice, or in another letter case' }],
        },
      );
    }
    seen.add(governed);
  }
}

function wrongType(field: string, expected: string): AppError {
  return new AppError('validation_failed', `The field "${field}" must be ${expected}.`, {
    errors: [{ path: field, message: `must be ${expected}` }],
  });
}
