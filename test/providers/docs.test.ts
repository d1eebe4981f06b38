import { readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import { KEY_TEST_STATUSES } from '../../src/keys/schema.ts';
import { providersTable, outcomesTable, toMarkdown } from './tables.ts';

const docsPage = readFileSync(new URL('../../docs/providers.md', import.meta.url), 'utf8');

/** Removes the padding of table columns. */
function withoutPadding(text: string): string {
  return text.replace(/-{3,}/g, '---').replace(/ +/g, ' ');
}

describe('docs/providers.md', () => {
  it('states address, protocols, key format, test and billing of every provider as in the code', () => {
    expect(withoutPadding(docsPage)).toContain(withoutPadding(toMarkdown(providersTable())));
  });

  it('states for every provider which response leads to which outcome, as in the recorded responses', () => {
    expect(withoutPadding(docsPage)).toContain(withoutPadding(toMarkdown(outcomesTable())));
  });

  it('explains every status of a test', () => {
    for (const status of KEY_TEST_STATUSES) expect(docsPage).toContain(`\`${status}\``);
  });
});
