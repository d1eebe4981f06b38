import { PageSettings } from '../page/schema.ts';

/** Written into the HTML by the server (src/page/routes.ts). */
export const pageSettings = PageSettings.parse(JSON.parse(readMeta('page-settings')));

/** Allows the style elements that Mantine and scroll locks insert. Not for scripts. */
export const styleNonce = readMeta('style-nonce');

function readMeta(name: string): string {
  const element = document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`);
  if (element === null) throw new Error(`The page has no meta tag ${name}.`);
  return element.content;
}
