import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';

const ROOT = path.join(import.meta.dirname, '../../..');
const BUILT = path.join(ROOT, 'dist/web/index.html');

/** Builds the page into dist/web, unless the build that is there is newer than the sources. Takes 1 to 3 s. */
export async function buildPage(): Promise<void> {
  if (await isBuildCurrent()) return;
  const { build } = await import('vite');
  await build({ configFile: path.join(ROOT, 'vite.config.ts'), logLevel: 'warn' });
}

async function isBuildCurrent(): Promise<boolean> {
  const built = await stat(BUILT).catch(() => undefined);
  if (built === undefined) return false;
  const sources = (await readdir(path.join(ROOT, 'src'), { recursive: true })).map((name) =>
    path.join('src', name),
  );
  const files = [...sources, 'vite.config.ts', 'package-lock.json'];
  const times = await Promise.all(files.map(async (file) => (await stat(path.join(ROOT, file))).mtimeMs));
  return Math.max(...times) < built.mtimeMs;
}
