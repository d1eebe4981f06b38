/** Enough to choose from in an error. */
const MAX_NAMES = 5;
/** To compare more takes longer than 10 ms. A user's endpoints list thousands of names of up to 256 characters. */
const MAX_COMPARED_CHARACTERS = 50_000;
/** Of longer names the ends are compared. */
const MAX_NAME_LENGTH = 64;
/** Of 1. Names below have little in common. */
const MIN_SIMILARITY = 0.5;

/**
 * The names most like one that is not among them, the nearest first; at most five. Letter case does not count. The last
 * segments are compared too, so that `gpt-4o-mni` is near `openai/gpt-4o-mini`.
 */
export function findNearNames(name: string, names: Iterable<string>): readonly string[] {
  const similarityOf = createSimilarity(name);
  const near: { name: string; similarity: number }[] = [];
  let compared = 0;
  for (const each of names) {
    compared += Math.min(each.length, MAX_NAME_LENGTH);
    if (compared > MAX_COMPARED_CHARACTERS) break;
    const similarity = similarityOf(each);
    if (similarity >= MIN_SIMILARITY) near.push({ name: each, similarity });
  }
  near.sort((a, b) => b.similarity - a.similarity || (a.name < b.name ? -1 : 1));
  return near.slice(0, MAX_NAMES).map((each) => each.name);
}

/** @returns the similarity to `name`, from 0 to 1: the share of pairs of adjacent characters that are in both. */
function createSimilarity(name: string): (other: string) => number {
  const whole = toPairs(name);
  const last = toPairs(toLastSegment(name));
  return (other) => Math.max(compare(whole, toPairs(other)), compare(last, toPairs(toLastSegment(other))));
}

function toLastSegment(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1);
}

function toPairs(name: string): ReadonlySet<string> {
  const text = name.slice(-MAX_NAME_LENGTH).toLowerCase();
  return new Set(
    Array.from({ length: Math.max(text.length - 1, 0) }, (_, index) => text.slice(index, index + 2)),
  );
}

/** The coefficient of Dice. */
function compare(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  let common = 0;
  for (const pair of b) if (a.has(pair)) common += 1;
  return common === 0 ? 0 : (2 * common) / (a.size + b.size);
}
