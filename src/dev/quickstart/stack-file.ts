import { existsSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { writePrivateFile } from './secrets.ts';
import { StartError } from '../../cli/start-error.ts';

const StackFile = z.object({
  app_url: z.string(),
  keycloak_url: z.string(),
  /** Null where Keycloak is somebody else's. */
  admin_user: z.string().nullable(),
  admin_password_file: z.string().nullable(),
  /** As the app's role, with its password. */
  database_url: z.string(),
  pids: z.object({
    app: z.number(),
    keycloak: z.number().nullable(),
    postgres: z.number().nullable(),
  }),
});

/** What runs, for other programs on this machine: `DATA_DIR/stack.json`. */
export type StackFile = z.infer<typeof StackFile>;

const toStackFilePath = (dataDir: string) => path.join(dataDir, 'stack.json');

export function writeStackFile(dataDir: string, stack: StackFile): void {
  writePrivateFile(toStackFilePath(dataDir), `${JSON.stringify(stack, null, 2)}\n`);
}

export function hasStackFile(dataDir: string): boolean {
  return existsSync(toStackFilePath(dataDir));
}

export function removeStackFile(dataDir: string): void {
  rmSync(toStackFilePath(dataDir), { force: true });
}

/** @throws StartError when nothing was started in that data directory. */
export function getStackFile(dataDir: string): StackFile {
  if (!hasStackFile(dataDir))
    throw new StartError(`Nothing runs from ${dataDir}: start it with \`npm start\` first.`);
  return StackFile.parse(JSON.parse(readFileSync(toStackFilePath(dataDir), 'utf8')));
}
