import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';

/** What `vite build` wrote. */
export interface BuiltPage {
  /** With {@link NONCE_PLACEHOLDER} and {@link SETTINGS_PLACEHOLDER}, which each response replaces. */
  html: string;
  /** Changes with each change of the page, since the HTML names all files by their hashes. */
  build: string;
}

export const NONCE_PLACEHOLDER = '__STYLE_NONCE__';
export const SETTINGS_PLACEHOLDER = '__PAGE_SETTINGS__';

/** Beside the compiled code; a start from the sources serves the same build. */
export const BUILD_DIRECTORY = path.join(
  import.meta.dirname,
  import.meta.filename.endsWith('.ts') ? '../../dist/web' : '../web',
);

function isPageBuilt(directory = BUILD_DIRECTORY): boolean {
  return existsSync(path.join(directory, 'index.html'));
}

/** Creates a reader that keeps the page once it was read. It returns undefined while the page is not built. */
export function createBuiltPageReader(directory: string): () => Promise<BuiltPage | undefined> {
  let page: BuiltPage | undefined;
  return async () => {
    if (page !== undefined || !isPageBuilt(directory)) return page;
    const html = await readFile(path.join(directory, 'index.html'), 'utf8');
    page = { html, build: createHash('sha256').update(html).digest('hex').slice(0, 16) };
    return page;
  };
}
