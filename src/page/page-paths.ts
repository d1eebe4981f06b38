/** Addresses of the page in Express's syntax. The browser's router decides what each shows (src/web/router.tsx). */
export const PAGE_PATHS = [
  '/',
  '/welcome',
  '/keys',
  '/servers',
  '/servers/:id',
  '/runs',
  '/runs/:id',
  '/tokens',
  '/audit',
  '/settings',
] as const;
