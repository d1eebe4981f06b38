import { describe, expect, it } from '@jest/globals';
import { createAddEdit, createUpdateEdit } from '../../src/keys/pool-edit.ts';
import { parsePool, toKeyVersion } from '../../src/keys/stored-key.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { userOwner } from '../../src/lib/owner.ts';
import { custom } from '../../src/providers/custom.ts';
import { ollama } from '../../src/providers/ollama.ts';
import { randomEncryptionKey, randomKey } from './instance.ts';

const keyring = createKeyring([randomEncryptionKey()]);

/** Adds a key, or replaces the one with `replacedId`. @returns the values of the pool. */
function add(
  values: readonly string[],
  endpoint: string | null,
  { provider = custom, id = String(values.length), replacedId, key = randomKey() }: AddOptions = {},
): readonly string[] {
  const input = {
    ...{ owner: userOwner('a'), provider, id: replacedId ?? id },
    ...{ isReplacement: replacedId !== undefined, key, label: null, endpoint, expiresAt: null },
  };
  return createAddEdit(keyring, input, parsePool(values)).values;
}

interface AddOptions {
  provider?: typeof custom;
  /** Of a new key. */
  id?: string;
  replacedId?: string;
  key?: string;
}

describe('an endpoint with the slug of another one', () => {
  it.each([
    ['https://llm.example', 'https://llm.example/v1'],
    ['https://llm.example/v1', 'http://llm.example/v1'],
    ['http://llm.example', 'https://llm.example'],
    ['https://llm.example:8443', 'http://llm.example:8443/v1'],
    ['https://llm.example/openai', 'http://llm.example/openai'],
    [null, 'http://operator/v1'],
  ])('is refused: beside %s, %s', (stored, endpoint) => {
    for (const provider of [custom, ollama]) {
      const refusal = expect.objectContaining({
        code: 'validation_failed',
        detail: expect.stringContaining(stored ?? 'the operator'),
        errors: [expect.objectContaining({ path: 'endpoint' })],
      });
      expect(() => add(add([], stored, { provider }), endpoint, { provider })).toThrow(refusal);
      const two = add(add([], stored, { provider }), 'https://another.example', { provider });
      expect(() => add(two, endpoint, { provider, replacedId: '1' })).toThrow(refusal);
    }
  });

  it('may replace the only key that has it', () => {
    const [value] = add(add([], 'https://llm.example'), 'https://llm.example/v1', { replacedId: '0' });
    expect(parsePool([value ?? '']).keys[0]?.endpoint).toBe('https://llm.example/v1');
  });

  it('keeps its stored keys, which can be replaced, and gets further ones', () => {
    const stored = [...add([], 'https://llm.example'), ...add([], 'http://llm.example', { id: '1' })];
    expect(add(stored, 'http://llm.example')).toHaveLength(3);
    for (const id of ['0', '1'])
      expect(add(stored, 'https://llm.example', { replacedId: id })).toHaveLength(2);
  });

  it('is allowed where the slugs differ', () => {
    const endpoints = ['https://llm.example', 'https://llm.example:8443', 'https://llm.example/a'];
    const values = endpoints.reduce<readonly string[]>((pool, endpoint) => add(pool, endpoint), []);
    expect(values).toHaveLength(3);
  });
});

describe('a change with If-Match that is tried again', () => {
  it('passes where the stored key is what it has written itself, and no other', () => {
    const pool = parsePool(add([], 'https://llm.example'));
    const [key] = pool.keys;
    if (key === undefined) throw new Error('the pool is empty');
    const ifMatch = `"${toKeyVersion(key)}"`;
    const target = { owner: userOwner('a'), provider: custom, id: key.id, ifMatch };
    const written = createUpdateEdit(keyring, target, { label: 'Mine' }, pool);
    const change = (label: string, stored = written) =>
      createUpdateEdit(keyring, target, { label }, parsePool(stored.values), written);
    expect(change('Mine').value).toBe(written.value);
    const other = createUpdateEdit(keyring, target, { label: 'Theirs' }, pool);
    expect(() => change('Mine', other)).toThrow(expect.objectContaining({ code: 'version_mismatch' }));
  });
});
