import { z } from 'zod';

/** What the page knows before its first request: in a meta tag of its HTML, so it holds nothing about the user. */
export const PageSettings = z.object({
  mode: z.enum(['local', 'deployed']),
  version: z.string(),
  realm: z.string(),
  /** Keycloak's account console, where users change their profile and see signed-in devices. */
  account_url: z.string(),
  /** Changes with each change of the page. */
  build: z.string(),
});
export type PageSettings = z.output<typeof PageSettings>;
