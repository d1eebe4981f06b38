import { execFile } from 'node:child_process';
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const ROOT = path.join(import.meta.dirname, '../../..');
const BUILT = path.join(ROOT, 'dist/web/index.html');

/**
 * Builds the page into dist/web, unless the build that is there is newer than the sources. Takes 1 to 3 s.
 * @throws Error with the output of the build.
 */
export async function buildPage(): Promise<void> {
  if (await isBuildCurrent()) return;
  // A process of its own, since React's development build is chosen by NODE_ENV, which is another one under jest.
  await promisify(execFile)(process.execPath, [path.join(ROOT, 'node_modules/vite/bin/vite.js'), 'build'], {
    cwd: ROOT,
    env: { NODE_ENV: 'production' },
  });
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
