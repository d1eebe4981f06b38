import { readFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';

const Package = z.object({ version: z.string() });

/** The version in package.json, which lies two folders up from the sources and from the compiled code. */
export const PACKAGE_VERSION = Package.parse(
  JSON.parse(readFileSync(path.join(import.meta.dirname, '../../package.json'), 'utf8')),
).version;
