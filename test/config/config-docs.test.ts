import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { envExample, withConfigTable } from '../../scripts/config-docs.ts';

const read = (name: string) => readFileSync(path.join(import.meta.dirname, '..', '..', name), 'utf8');

describe('the documents made from the configuration', () => {
  it('has an .env.example that is what `npm run docs` writes', () => {
    expect(read('.env.example')).toBe(envExample());
  });

  it('has a table in the README that is what `npm run docs` writes', () => {
    const readme = read('README.md');
    const tidy = (text: string) =>
      text
        .replaceAll(/ +/g, ' ')
        .replaceAll(/-{3,}/g, '---')
        .replaceAll('| ---', '|---')
        .replaceAll('--- |', '---|');
    expect(tidy(readme)).toBe(tidy(withConfigTable(readme)));
  });
});
