/**
 * Evidence for the search for secrets at the end of a test run: all secrets that were used, all log lines of the apps
 * under test, and all responses that they sent. Each test process writes its own files; `evidence/search-run.ts` reads
 * them after all tests.
 */
import { appendFileSync } from 'node:fs';
import path from 'node:path';
import { DATABASES, jsonLine, LOGS, RESPONSES, SECRETS, type SecretKind } from './evidence/kinds.ts';

/** Shorter values occur by chance. */
const MIN_SECRET_LENGTH = 12;

export interface Evidence {
  /** Registers a value that must not be found anywhere. Values under 12 characters are ignored. */
  registerSecret(kind: SecretKind, value: string): void;
  recordLog(lines: string): void;
  /** Registers a database of which all rows are searched at the end. */
  recordDatabase(name: string): void;
  /** @param bytes one response: head and body. */
  recordResponse(bytes: Buffer): void;
}

/**
 * Writes to a folder immediately, so that nothing is lost when a process is killed.
 * @param folder undefined outside a test run: nothing is written then.
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
