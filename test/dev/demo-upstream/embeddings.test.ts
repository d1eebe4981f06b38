import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI from 'openai';
import { startDemoUpstream, type DemoUpstream } from '../../../src/dev/demo-upstream/server.ts';

let demo: DemoUpstream;
let client: OpenAI;

beforeAll(async () => {
  demo = await startDemoUpstream();
  const apiKey = 'demo-0123456789-wxyz';
  client = new OpenAI({ apiKey, baseURL: demo.url, maxRetries: 0, organization: null, project: null });
});
afterAll(() => demo.stop());

type Input = OpenAI.EmbeddingCreateParams['input'];
const request = (input: Input) => ({ model: 'demo-embeddings', input, encoding_format: 'float' as const });
const vectorsOf = async (input: Input) =>
  (await client.embeddings.create(request(input))).data.map(({ embedding }) => embedding);
const multiply = (a: readonly number[] = [], b: readonly number[] = []) =>
  a.reduce((sum, number, index) => sum + number * (b[index] ?? 0), 0);

describe('embeddings of the demo', () => {
  it('are the same for the same text, of length 1, and alike for texts with words in common', async () => {
    const [first, again, alike, other] = await vectorsOf([
      ...['A red house', 'a RED house', 'A red car', 'Completely unrelated words'],
    ]);
    expect(again).toEqual(first);
    expect(multiply(first, first)).toBeCloseTo(1);
    expect(multiply(first, alike)).toBeGreaterThan(multiply(first, other) + 0.2);
  });

  it('have as many numbers as dimensions asks for, by default 256, for text and tokens', async () => {
    expect((await vectorsOf('x'))[0]).toHaveLength(256);
    expect((await vectorsOf([1, 2, 3])).map(({ length }) => length)).toEqual([256]);
    const { data, usage, model } = await client.embeddings.create({
      ...request([[1, 2], [3]]),
      dimensions: 12,
    });
    expect(data.map(({ embedding, index, object }) => [embedding.length, index, object])).toEqual([
      [12, 0, 'embedding'],
      [12, 1, 'embedding'],
    ]);
    expect([usage, model]).toEqual([{ prompt_tokens: 3, total_tokens: 3 }, 'demo-embeddings']);
  });

  it('in base64 are the same numbers, which the SDK asks for and decodes by default', async () => {
    const { data } = await client.embeddings.create({ model: 'any', input: 'x' });
    const [numbers = []] = await vectorsOf('x');
    expect(data[0]?.embedding).toHaveLength(256);
    expect(multiply(data[0]?.embedding, numbers)).toBeCloseTo(1);
  });

  it.each([
    [{ ...request('x'), input: '' }, 'input'],
    [{ ...request('x'), input: [] }, 'input'],
    [{ ...request('x'), dimensions: 0 }, 'dimensions'],
    [{ ...request('x'), encoding_format: 'hex' as 'float' }, 'encoding_format'],
  ])('are refused for %j, which names %s', async (body, param) => {
    await expect(client.embeddings.create(body)).rejects.toMatchObject({ status: 400, param });
  });
});
