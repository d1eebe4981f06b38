import { readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import { KEY_TEST_STATUSES } from '../../src/keys/schema.ts';
import { providersTable, outcomesTable, toMarkdown } from './tables.ts';

const page = readFileSync(new URL('../../docs/providers.md', import.meta.url), 'utf8');

/** A page without the blanks that put tables in columns. */
function plain(text: string): string {
  return text.replace(/-{3,}/g, '---').replace(/ +/g, ' ');
}

describe('docs/providers.md', () => {
  it('tells the address, key, test and price of every provider as the code has them', () => {
    expect(plain(page)).toContain(plain(toMarkdown(providersTable())));
  });

  it('tells for every provider which answers lead to which outcome, as the recorded answers are read', () => {
    expect(plain(page)).toContain(plain(toMarkdown(outcomesTable())));
  });

  it('explains every status that a test can have', () => {
    for (const status of KEY_TEST_STATUSES) expect(page).toContain(`\`${status}\``);
  });
});
