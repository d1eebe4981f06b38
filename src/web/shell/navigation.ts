import { shellTexts } from '../texts/shell.ts';

export interface NavigationEntry {
  /** Address of the page; its subpages belong to the entry, too. */
  to: string;
  label: string;
}

/** In the order of the menu. The first one is the start page. */
export const NAVIGATION: readonly [NavigationEntry, ...NavigationEntry[]] = [
  { to: '/keys', label: shellTexts.pages.keys },
  { to: '/servers', label: shellTexts.pages.servers },
  { to: '/runs', label: shellTexts.pages.runs },
  { to: '/tokens', label: shellTexts.pages.tokens },
  { to: '/audit', label: shellTexts.pages.audit },
  { to: '/settings', label: shellTexts.pages.settings },
];
