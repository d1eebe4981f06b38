import { existsSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { writePrivateFile } from './secrets.ts';
import { StartError } from '../../lib/errors.ts';

const StackFile = z.object({
  app_url: z.string(),
  /** Host that the app listens on. */
  app_host: z.string(),
  keycloak_url: z.string(),
  /** Null if Keycloak was not started by this stack. */
  admin_user: z.string().nullable(),
  admin_password_file: z.string().nullable(),
  /** Address with the app's role and password. */
  database_url: z.string(),
  pids: z.object({
    app: z.number(),
    keycloak: z.number().nullable(),
    postgres: z.number().nullable(),
  }),
});

/** `DATA_DIR/stack.json`: the running stack, for other programs on this machine. */
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

/** @throws StartError if no stack runs from that data directory. */
export function getStackFile(dataDir: string): StackFile {
  if (!hasStackFile(dataDir))
    throw new StartError(`No stack is running from ${dataDir}. Start it with \`npm start\` first.`);
  return StackFile.parse(JSON.parse(readFileSync(toStackFilePath(dataDir), 'utf8')));
}
