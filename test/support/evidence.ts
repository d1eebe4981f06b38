/**
 * What a test run leaves behind for the search that ends it: every secret that was used, every log line of
 * the apps under test, and every answer that they sent. Test files write, each process to files of its own;
 * `evidence/search-run.ts` reads them when all tests are over.
 */
import { appendFileSync } from 'node:fs';
import path from 'node:path';
import { DATABASES, jsonLine, LOGS, RESPONSES, SECRETS, type SecretKind } from './evidence/kinds.ts';

/** Below this, a value turns up by chance. */
const MIN_SECRET_LENGTH = 12;

/** Takes evidence down. */
export interface Evidence {
  /** Names a value that must be found nowhere. Values under 12 characters are passed over. */
  registerSecret(kind: SecretKind, value: string): void;
  recordLog(lines: string): void;
  /** A database whose every row is searched at the end. */
  recordDatabase(name: string): void;
  /** Bytes that are one answer: head and body. */
  recordResponse(bytes: Buffer): void;
}

/**
 * Writes to a folder at once, so that nothing is lost however a process ends.
 * @param folder undefined outside a test run: nothing is kept then.
 */
export function createEvidence(folder: string | undefined): Evidence {
  const known = new Set<string>();
  const append = (kind: string, data: string | Buffer) => {
    if (folder !== undefined)
      appendFileSync(path.join(folder, `${kind}-${process.pid}.txt`), data, { mode: 0o600 });
  };
  return {
    registerSecret(kind, value) {
      if (value.length < MIN_SECRET_LENGTH || known.has(value)) return;
      known.add(value);
      append(SECRETS, jsonLine({ kind, value }));
    },
    recordLog: (lines) => append(LOGS, lines),
    recordDatabase: (name) => append(DATABASES, `${name}\n`),
    recordResponse: (bytes) => append(RESPONSES, bytes),
  };
}

/** The evidence of this run. */
export const evidence = createEvidence(process.env['OPS_TEST_EVIDENCE']);
