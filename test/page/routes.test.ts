import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { fetch } from 'undici';
import { createApp } from '../../src/app.ts';
import type { Context } from '../../src/context.ts';
import { createLog } from '../../src/lib/log.ts';
import { PAGE_PATHS } from '../../src/page/page-paths.ts';
import { pageRoutes } from '../../src/page/routes.ts';

const SETTINGS = {
  mode: 'local',
  version: '1.2.3',
  realm: '"><script>alert(1)</script>',
  account_url: 'https://login.example.com/realms/ops-center/account',
} as const;

let folder: string;
let url: string;
let close: () => void;

/** The HTTP application with the page alone. */
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'page-'));
  const page = pageRoutes({
    buildDirectory: folder,
    settings: SETTINGS,
    keycloakUrl: 'https://login.example.com/auth',
  });
  const app = createApp({
    config: { publicUrl: 'http://localhost', trustProxy: 0 },
    log: createLog('silent'),
    metrics: { observe: () => undefined },
    hostGuard: (_request: unknown, _response: unknown, next: () => void) => {
      next();
    },
    guards: {},
    routes: page.routes,
    serveUnknownPath: page.serveUnknownPath,
    isDraining: () => false,
  } as unknown as Context);
  const server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  close = () => {
    server.close();
    server.closeAllConnections();
  };
});
afterAll(async () => {
  close();
  await rm(folder, { recursive: true });
});

async function writeBuild(): Promise<void> {
  await mkdir(path.join(folder, 'assets'), { recursive: true });
  const assets = path.join(folder, 'assets');
  await Promise.all([
    writeFile(path.join(folder, 'secret.js'), 'outside'),
    writeFile(path.join(assets, 'index-abc.js'), 'plain'),
    writeFile(path.join(assets, 'index-abc.js.br'), 'brotli'),
    writeFile(path.join(assets, 'index-abc.js.gz'), 'gzip'),
    writeFile(path.join(assets, 'notes.txt'), 'no asset'),
    writeFile(
      path.join(folder, 'index.html'),
      '<meta name="style-nonce" content="__STYLE_NONCE__"><meta name="page-settings" content="__PAGE_SETTINGS__">',
    ),
  ]);
}

describe('before the page is built', () => {
  it('says how to build it, and serves it once it is built', async () => {
    const before = await fetch(url);
    expect([before.status, await before.json()]).toMatchObject([
      503,
      { code: 'page_not_built', detail: 'The page is not built. Run `npm run build`.' },
    ]);
    await writeBuild();
    expect((await fetch(url)).status).toBe(200);
  });
});

describe('the page', () => {
  beforeAll(writeBuild);

  it.each([...PAGE_PATHS])('is served at %s, not cached, also to HEAD', async (pagePath) => {
    const address = url + pagePath.replace(':id', 'r-1');
    const page = await fetch(address);
    expect([page.status, page.headers.get('content-type'), page.headers.get('cache-control')]).toEqual([
      200,
      'text/html; charset=utf-8',
      'no-store',
    ]);
    expect((await fetch(address, { method: 'HEAD' })).status).toBe(200);
  });

  it('allows its own scripts only, and styles with a nonce that no other response has', async () => {
    const responses = await Promise.all([fetch(url), fetch(url)]);
    const nonces = await Promise.all(
      responses.map(
        async (response) => /"style-nonce" content="([\w-]{22})"/.exec(await response.text())?.[1],
      ),
    );
    expect(new Set(nonces).size).toBe(2);
    for (const [index, response] of responses.entries())
      expect(response.headers.get('content-security-policy')).toBe(
        `default-src 'none';script-src 'self';style-src 'self' 'nonce-${String(nonces[index])}';style-src-attr 'none';` +
          "img-src 'self' data: blob:;font-src 'self';connect-src 'self';form-action 'self' https://login.example.com;" +
          "base-uri 'none';frame-ancestors 'none'",
      );
  });

  it('holds its settings, which cannot end the attribute', async () => {
    const text = await (await fetch(url)).text();
    const attribute = /"page-settings" content="([^"]*)"/.exec(text)?.[1] ?? '';
    const json = attribute.replaceAll('&lt;', '<').replaceAll('&quot;', '"').replaceAll('&amp;', '&');
    expect(JSON.parse(json)).toEqual({ ...SETTINGS, build: expect.stringMatching(/^[0-9a-f]{16}$/) });
    expect(text).not.toContain('<script');
  });

  it.each([
    ['br, gzip', 'br', 'brotli'],
    ['gzip', 'gzip', 'gzip'],
    ['identity', null, 'plain'],
  ])(
    'sends files for %s as the build compressed them, to be kept for a year',
    async (accepted, encoding, body) => {
      // undici would decompress the body, which is no compressed data here.
      const { request } = await import('undici');
      const response = await request(`${url}/assets/index-abc.js`, {
        headers: { 'accept-encoding': accepted },
      });
      expect(await response.body.text()).toBe(body);
      expect(response.headers).toMatchObject({
        'content-type': 'text/javascript; charset=utf-8',
        'cache-control': 'public, max-age=31536000, immutable',
        vary: 'accept-encoding',
      });
      expect(response.headers['content-encoding'] ?? null).toBe(encoding);
    },
  );

  it.each([
    '/assets/..%2fsecret.js',
    '/assets/%2e%2e%2fsecret.js',
    '/assets/missing.js',
    '/assets/notes.txt',
    '/assets/index-abc.js.br',
    '/assets/%00.js',
  ])('has no file %s', async (name) => {
    const response = await fetch(url + name);
    expect([response.status, await response.json()]).toMatchObject([404, { code: 'not_found' }]);
  });

  it('shows a browser the page for an address that does not exist, with status 404', async () => {
    const page = await fetch(`${url}/nothing/here`, { headers: { accept: 'text/html,*/*;q=0.8' } });
    expect([page.status, page.headers.get('content-type')]).toEqual([404, 'text/html; charset=utf-8']);
  });

  it.each([
    ['/api/v1/nothing', 'text/html'],
    ['/v1/nothing', 'text/html'],
    ['/nothing', 'application/json'],
    ['/nothing', '*/*'],
  ])('answers %s for %s with an error of the API', async (address, accept) => {
    const response = await fetch(url + address, { headers: { accept } });
    expect(response.status).toBe(404);
    expect(response.headers.get('content-type')).not.toContain('text/html');
  });
});
