import { expect } from '@jest/globals';
import type { OpenPage } from './open-page.ts';

/**
 * Expects that a secret which was typed and saved, or shown once and closed, is nowhere in the page: not in the document
 * and its fields, storage, history, addresses of requests or bodies of responses.
 */
export async function expectNoSecret({ page, network }: OpenPage, secret: string): Promise<void> {
  const places = await page.evaluate(() => {
    const { document, localStorage, sessionStorage, history, location } = globalThis as unknown as {
      document: {
        documentElement: { outerHTML: string };
        querySelectorAll(selector: string): ArrayLike<{ value: string }>;
      };
      localStorage: object;
      sessionStorage: object;
      history: { state: unknown };
      location: { href: string };
    };
    return {
      document: document.documentElement.outerHTML,
      fields: Array.from(document.querySelectorAll('input, textarea, select'), (field) => field.value).join(
        '\n',
      ),
      localStorage: JSON.stringify(localStorage),
      sessionStorage: JSON.stringify(sessionStorage),
      history: JSON.stringify(history.state) + location.href,
    };
  });
  const all: Record<string, string> = {
    ...places,
    urls: network.urls.join('\n'),
    responses: network.bodies.join('\n'),
  };
  const found = Object.keys(all).filter((place) => all[place]?.includes(secret));
  expect(found).toEqual([]);
}
