import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import path from 'node:path';
import type { NextFunction, Request, Response } from 'express';
import helmet from 'helmet';
import { rawRoute, type Route } from '../http/route.ts';
import { AppError, notFound } from '../lib/errors.ts';
import {
  createBuiltPageReader,
  NONCE_PLACEHOLDER,
  SETTINGS_PLACEHOLDER,
  type BuiltPage,
} from './built-page.ts';
import { PAGE_PATHS } from './page-paths.ts';
import type { PageSettings } from './schema.ts';

export { BUILD_DIRECTORY } from './built-page.ts';

export interface PageDeps {
  /** Folder of the built page. */
  buildDirectory: string;
  settings: Omit<PageSettings, 'build'>;
  /** Allowed as a form target, since the sign-out form redirects to Keycloak. */
  keycloakUrl: string;
}

const ASSET_TYPES: Record<string, string> = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
  '.png': 'image/png',
};
/** Names that the build gives: no folders, so a request can name no other file. */
const ASSET_NAME = /^[A-Za-z0-9_.-]+$/;
/** In order of preference. The build writes both beside each text file. */
const ENCODINGS = [
  { name: 'br', extension: '.br' },
  { name: 'gzip', extension: '.gz' },
] as const;

/** The page at each of its addresses, and its files. */
export function pageRoutes(deps: PageDeps): { routes: Route[]; serveUnknownPath: UnknownPathHandler } {
  const sendPage = createPageSender(deps);
  const routes = [
    ...PAGE_PATHS.map((pagePath) =>
      rawRoute({
        method: 'get',
        path: pagePath,
        access: 'public',
        handle: (_call, request, response) => sendPage(request, response, 200),
      }),
    ),
    rawRoute({
      method: 'get',
      path: '/assets/:name',
      access: 'public',
      handle: (_call, request, response) => sendAsset(deps.buildDirectory, request, response),
    }),
  ];
  return {
    routes,
    serveUnknownPath: async (request, response, next) => {
      if (isNavigation(request)) await sendPage(request, response, 404);
      else next();
    },
  };
}

export type UnknownPathHandler = (request: Request, response: Response, next: NextFunction) => Promise<void>;

/** A browser that opens an address. Calls of the API accept JSON, or anything. */
function isNavigation(request: Request): boolean {
  const isRead = request.method === 'GET' || request.method === 'HEAD';
  return (
    isRead &&
    !/^\/(api|v1|auth)(\/|$)/.test(request.path) &&
    (request.headers.accept ?? '').includes('text/html')
  );
}

function createPageSender({ buildDirectory, settings, keycloakUrl }: PageDeps) {
  const readPage = createBuiltPageReader(buildDirectory);
  return async (request: Request, response: Response, status: number): Promise<void> => {
    const page = await readPage();
    if (page === undefined)
      throw new AppError('page_not_built', 'The page is not built. Run `npm run build`.');
    // Mantine inserts style elements. The nonce is for styles only, never for scripts.
    const nonce = randomBytes(16).toString('base64url');
    setPageHeaders(request, response, nonce, keycloakUrl);
    response.setHeader('cache-control', 'no-store');
    response
      .status(status)
      .type('html')
      .send(fillIn(page, nonce, settings));
  };
}

function fillIn({ html, build }: BuiltPage, nonce: string, settings: PageDeps['settings']): string {
  const json = JSON.stringify({ ...settings, build } satisfies PageSettings);
  return html
    .replaceAll(NONCE_PLACEHOLDER, nonce)
    .replaceAll(SETTINGS_PLACEHOLDER, () => escapeAttribute(json));
}

function escapeAttribute(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;');
}

function setPageHeaders(request: Request, response: Response, nonce: string, keycloakUrl: string): void {
  const setHeaders = helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        scriptSrc: ["'self'"],
        styleSrc: ["'self'", `'nonce-${nonce}'`],
        styleSrcAttr: ["'none'"],
        imgSrc: ["'self'", 'data:', 'blob:'],
        fontSrc: ["'self'"],
        connectSrc: ["'self'"],
        formAction: ["'self'", new URL(keycloakUrl).origin],
        baseUri: ["'none'"],
        frameAncestors: ["'none'"],
      },
    },
    // With `no-referrer` the browser would send the sign-out form with `Origin: null`, like another site.
    referrerPolicy: { policy: 'same-origin' },
    // Set for all responses (`createSecurityHeaders`).
    strictTransportSecurity: false,
  });
  setHeaders(request, response, () => undefined);
}

async function sendAsset(directory: string, request: Request, response: Response): Promise<void> {
  const name = String(request.params['name']);
  const file = path.join(directory, 'assets', name);
  const type = ASSET_TYPES[path.extname(name)];
  if (!ASSET_NAME.test(name) || type === undefined || !existsSync(file)) throw notFound('This file');
  const accepted = request.acceptsEncodings(ENCODINGS.map((encoding) => encoding.name));
  const encoding = ENCODINGS.find((one) => one.name === accepted && existsSync(file + one.extension));
  // A browser that opens the file alone runs nothing of it: the policy of all other responses stays.
  response.setHeader('content-type', type);
  // The name changes with the content.
  response.setHeader('cache-control', 'public, max-age=31536000, immutable');
  response.setHeader('vary', 'accept-encoding');
  if (encoding !== undefined) response.setHeader('content-encoding', encoding.name);
  await new Promise<void>((resolve, reject) => {
    response.sendFile(
      file + (encoding?.extension ?? ''),
      { cacheControl: false, dotfiles: 'allow' },
      (error: Error | undefined) => {
        if (error === undefined || response.headersSent) resolve();
        else reject(error);
      },
    );
  });
}
