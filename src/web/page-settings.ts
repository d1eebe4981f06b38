import { PageSettings } from '../page/schema.ts';

/** Written into the HTML by the server (src/page/routes.ts). */
export const pageSettings = readPageSettings(document);

/** Allows the style elements that Mantine and scroll locks insert. Not for scripts. */
export const styleNonce = readMeta(document, 'style-nonce');

/** @throws Error if the document is not the page. */
export function readPageSettings(page: Document): PageSettings {
  return PageSettings.parse(JSON.parse(readMeta(page, 'page-settings')));
}

function readMeta(page: Document, name: string): string {
  const element = page.querySelector<HTMLMetaElement>(`meta[name="${name}"]`);
  if (element === null) throw new Error(`The page has no meta tag ${name}.`);
  return element.content;
}
