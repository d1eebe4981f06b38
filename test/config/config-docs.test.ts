import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { envExample, withConfigTable } from '../../scripts/config-docs.ts';

const read = (name: string) => readFileSync(path.join(import.meta.dirname, '..', '..', name), 'utf8');

describe('the documentation of the settings', () => {
  it('matches the .env.example that `npm run docs` writes', () => {
    expect(read('.env.example')).toBe(envExample());
  });

  it('matches the table in docs/configuration.md that `npm run docs` writes', () => {
    const page = read('docs/configuration.md');
    const tidy = (text: string) =>
      text
        .replaceAll(/ +/g, ' ')
        .replaceAll(/-{3,}/g, '---')
        .replaceAll('| ---', '|---')
        .replaceAll('--- |', '---|');
    expect(tidy(page)).toBe(tidy(withConfigTable(page)));
  });
});
