import { createHash } from 'node:crypto';
import { z } from 'zod';
import { readDemoRequest } from './protocol.ts';
import { countTokens } from './tokens.ts';

/** Embeddings accept any model name, as chats do. This one is listed. */
export const EMBEDDING_MODEL = 'demo-embeddings';

const DEFAULT_DIMENSIONS = 256;
const MAX_DIMENSIONS = 4_096;
const MAX_INPUTS = 2_048;
/** Numbers of a vector that one word changes. More make other words less likely to change the same ones. */
const NUMBERS_PER_WORD = 4;

const Text = z.string().min(1);
const Tokens = z.array(z.int().min(0)).min(1);

/** The part of OpenAI's protocol that the demo implements. Unknown fields are ignored. */
const DemoEmbeddingsRequest = z.looseObject({
  model: z.string().min(1),
  input: z.union([
    Text,
    z.array(Text).min(1).max(MAX_INPUTS),
    Tokens,
    z.array(Tokens).min(1).max(MAX_INPUTS),
  ]),
  dimensions: z.int().min(1).max(MAX_DIMENSIONS).nullish(),
  encoding_format: z.enum(['float', 'base64']).nullish(),
});
type Input = z.output<typeof DemoEmbeddingsRequest>['input'];

/**
 * The response to a request for embeddings. The same words always have the same vector, of length 1, and texts with
 * words in common have vectors that are alike.
 * @throws DemoError 400 for an invalid request.
 */
export function toEmbeddings(body: Buffer): object {
  const { model, input, dimensions, encoding_format: format } = readDemoRequest(DemoEmbeddingsRequest, body);
  const inputs = toInputs(input);
  const tokens = inputs.reduce((sum, one) => sum + one.tokenCount, 0);
  return {
    object: 'list',
    data: inputs.map(({ words }, index) => {
      const vector = createVector(words, dimensions ?? DEFAULT_DIMENSIONS);
      return { object: 'embedding', index, embedding: format === 'base64' ? toBase64(vector) : [...vector] };
    }),
    model,
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  };
}

interface InputText {
  words: readonly string[];
  tokenCount: number;
}

function toInputs(input: Input): InputText[] {
  const isOneText = typeof input === 'string' || typeof input[0] === 'number';
  const texts = (isOneText ? [input] : input) as readonly (string | readonly number[])[];
  return texts.map((text) =>
    typeof text === 'string'
      ? { words: text.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? [text], tokenCount: countTokens(text) }
      : { words: text.map(String), tokenCount: text.length },
  );
}

/** Each word adds to some numbers and subtracts from others, which its hash selects. */
function createVector(words: readonly string[], dimensions: number): Float32Array {
  const vector = new Float32Array(dimensions);
  for (const word of words) {
    const hash = createHash('sha256').update(word).digest();
    for (let index = 0; index < NUMBERS_PER_WORD; index += 1) {
      const position = hash.readUInt32LE(index * 4) % dimensions;
      const sign = (hash[16 + index] ?? 0) % 2 === 0 ? 1 : -1;
      vector[position] = (vector[position] ?? 0) + sign;
    }
  }
  const length = Math.hypot(...vector);
  return length === 0 ? vector : vector.map((number) => number / length);
}

/** Numbers of 32 bits, the least significant byte first. */
function toBase64(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * Float32Array.BYTES_PER_ELEMENT);
  vector.forEach((number, index) => bytes.writeFloatLE(number, index * Float32Array.BYTES_PER_ELEMENT));
  return bytes.toString('base64');
}
