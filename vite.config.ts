import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';
import react from '@vitejs/plugin-react';
import { defineConfig, type Plugin } from 'vite';

const OUTPUT = path.join(import.meta.dirname, 'dist/web');

/** Where `npm run dev:web` finds the app that answers its API calls. */
const APP_URL = process.env['APP_URL'] ?? 'http://localhost:3000';

/** Writes a `.br` and a `.gz` beside each text file, so that the app compresses nothing while it runs. */
function precompress(): Plugin {
  return {
    name: 'precompress',
    apply: 'build',
    async closeBundle() {
      const folder = path.join(OUTPUT, 'assets');
      const names = (await readdir(folder)).filter((name) => /\.(js|css|svg)$/.test(name));
      await Promise.all(
        names.map(async (name) => {
          const file = path.join(folder, name);
          const content = await readFile(file);
          const quality = { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } };
          await Promise.all([
            promisify(brotliCompress)(content, quality).then((bytes) => writeFile(`${file}.br`, bytes)),
            promisify(gzip)(content, { level: 9 }).then((bytes) => writeFile(`${file}.gz`, bytes)),
          ]);
        }),
      );
    },
  };
}

/** Fills in what the app's route fills in for the built page (src/page/routes.ts), with the settings of the running app. */
function fillInSettings(): Plugin {
  return {
    name: 'fill-in-settings',
    apply: 'serve',
    async transformIndexHtml(html) {
      const page = await (await fetch(APP_URL)).text();
      const settings = /name="page-settings" content="([^"]*)"/.exec(page)?.[1];
      if (settings === undefined) throw new Error(`Start the app first: ${APP_URL} did not send the page.`);
      return html.replace('__PAGE_SETTINGS__', settings).replace('__STYLE_NONCE__', 'unused');
    },
  };
}

export default defineConfig({
  root: 'src/web',
  cacheDir: path.join(import.meta.dirname, '.data/vite'),
  plugins: [react(), precompress(), fillInSettings()],
  build: {
    outDir: OUTPUT,
    emptyOutDir: true,
    target: 'es2022',
    sourcemap: false,
    // Which files each page needs, for the budgets.
    manifest: true,
    // test/browser/budgets.test.ts measures the sizes.
    chunkSizeWarningLimit: 1_000,
    // The content security policy allows no inline files, and a data URL would be one.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    host: '127.0.0.1',
    // The app refuses requests for another host, and writes that come from another origin. `/api` alone is a source folder.
    proxy: { '^/(api/v1|v1|auth)/': { target: APP_URL, changeOrigin: true, headers: { origin: APP_URL } } },
  },
});
