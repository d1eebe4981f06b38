import { AppError } from '../lib/errors.ts';
import type { Provider } from '../providers/provider.ts';

const MAX_KEY_LENGTH = 1024;
/** In a shorter key, four shown characters would reveal too much. */
const MIN_LENGTH_TO_SHOW = 16;
const SHOWN_SUFFIX_LENGTH = 4;

/**
 * Refuses what cannot be a key of this provider. No error contains the key or a part of it.
 * @param providers every available provider, to name the one that the key belongs to.
 * @throws AppError `invalid_key_format`, `wrong_provider_key`, `key_too_long` (400).
 */
export function assertKeyFormat(provider: Provider, key: string, providers: readonly Provider[]): void {
  if (key === '') {
    if (!provider.requiresKey) return;
    throw invalidFormat('A key is required.');
  }
  if (key.length > MAX_KEY_LENGTH) {
    throw new AppError('key_too_long', `A key has at most ${MAX_KEY_LENGTH} characters.`);
  }
  if (isMask(key)) throw invalidFormat('This is the mask of a stored key, not a key. Enter the key itself.');
  assertCharacters(key);
  if (provider.key.pattern.test(key)) return;
  const other = findProviderByPrefix(key, providers);
  if (other !== undefined && other !== provider) {
    throw new AppError(
      'wrong_provider_key',
      `This looks like a key of ${other.name}, not of ${provider.name}.`,
    );
  }
  const hint = provider.key.hint === null ? '' : ` (its keys look like ${provider.key.hint})`;
  throw invalidFormat(`This is not a key of ${provider.name}${hint}.`);
}

/** The provider with the longest matching prefix (`sk-ant-` begins with `sk-`). Not every provider has a prefix. */
function findProviderByPrefix(key: string, providers: readonly Provider[]): Provider | undefined {
  const matching = providers.filter(({ key: { prefix } }) => prefix !== '' && key.startsWith(prefix));
  return matching.reduce<Provider | undefined>(
    (longest, one) =>
      longest === undefined || one.key.prefix.length > longest.key.prefix.length ? one : longest,
    undefined,
  );
}

/** What may be shown of a key: the provider's public prefix and the last four characters. */
export function maskKey(provider: Provider, key: string): string {
  if (key.length < MIN_LENGTH_TO_SHOW) return '…';
  const prefix = key.startsWith(provider.key.prefix) ? provider.key.prefix : '';
  return `${prefix}…${key.slice(-SHOWN_SUFFIX_LENGTH)}`;
}

/** The masks that pages and responses show: `***stored***`, `***masked***`, `sk-…abcd`, `••••`. */
function isMask(key: string): boolean {
  return /…|^\*{3}.*\*{3}$|^[*•]+$/u.test(key.trim());
}

function assertCharacters(key: string): void {
  for (const [index, character] of Array.from(key).entries()) {
    const problem = describeInvalidCharacter(character);
    if (problem !== undefined) throw invalidFormat(`Character ${index + 1} of the key is ${problem}.`);
  }
}

function describeInvalidCharacter(character: string): string | undefined {
  if (character === '\n' || character === '\r') return 'a line break';
  if (/^\s$/u.test(character)) return 'a blank';
  return /^[\x21-\x7e]$/.test(character) ? undefined : 'not printable ASCII';
}

function invalidFormat(detail: string): AppError {
  return new AppError('invalid_key_format', detail);
}
