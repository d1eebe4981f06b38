import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Principal } from '../http/principal.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { parseJson } from '../lib/json.ts';
import type { Owner } from '../lib/owner.ts';
import type { Program } from '../runners/runner.ts';
import {
  countOutputBytes,
  addByteCounts,
  fromWireEvent,
  NO_BYTES,
  StoredEvent,
  toWireEvent,
  type NumberedEvent,
  type ByteCounts,
} from './events.ts';
import { ProgramView, StartRun, toRunProgram } from './schema.ts';

/** Identifies a run. Texts encrypted for it decrypt only for this id and owner. */
export interface RunRef {
  id: string;
  owner: Owner;
}

/** The sign-in or token that started a run. The run ends when it ends. */
const RunSignIn = z.object({
  sessionId: z.string().nullable(),
  keycloakSessionId: z.string().nullable(),
  /** Missing in runs that were stored before tokens existed. */
  tokenId: z.string().nullable().default(null),
  signedInAtMs: z.number().optional(),
});
export type RunSignIn = z.output<typeof RunSignIn>;

const bindingFields = { v: z.literal(1), owner: z.string(), run: z.string() };
const RunPlaintext = z.object({
  ...bindingFields,
  kind: z.literal('run'),
  asked: StartRun,
  sign_in: RunSignIn,
});
const ProgramPlaintext = z.object({
  ...bindingFields,
  kind: z.literal('run_program'),
  program: ProgramView,
});
const EventsPlaintext = z.object({
  ...bindingFields,
  kind: z.literal('run_events'),
  first: z.number().int(),
  events: z.array(StoredEvent),
});

/** A stored batch of events. */
export interface EncryptedBatch {
  firstSeq: number;
  lastSeq: number;
  bytes: ByteCounts;
  ciphertext: string;
}

/** Encrypts the stored texts of runs. Each plaintext contains its owner, its run and its kind. */
export interface RunEncryption {
  encryptRun(run: RunRef, request: StartRun, principal: Principal): string;
  /** @returns undefined when the text does not decrypt, or was encrypted for another run or owner. */
  decryptRun(run: RunRef, ciphertext: string): { request: StartRun; signIn: RunSignIn } | undefined;
  /** The text of a finished run, with the program alone. @returns the same text when it does not decrypt. */
  reencryptProgram(run: RunRef, ciphertext: string): string;
  /** The program of a run, finished or not. */
  decryptProgram(run: RunRef, ciphertext: string): Program | undefined;
  encryptEvents(run: RunRef, events: readonly NumberedEvent[]): EncryptedBatch;
  decryptEvents(run: RunRef, batch: { firstSeq: number; ciphertext: string }): NumberedEvent[] | undefined;
}

export function createRunEncryption(keyring: Keyring): RunEncryption {
  const encrypt = (value: unknown) => keyring.encrypt(JSON.stringify(value));
  const toBinding = ({ id, owner }: RunRef) => ({ v: 1 as const, owner, run: id });

  function decrypt<T extends { owner: string; run: string }>(
    schema: z.ZodType<T>,
    run: RunRef,
    ciphertext: string,
  ): T | undefined {
    const plaintext = schema.safeParse(parseJson(keyring.decrypt(ciphertext) ?? '')).data;
    return plaintext?.owner === run.owner && plaintext.run === run.id ? plaintext : undefined;
  }

  const decryptRun: RunEncryption['decryptRun'] = (run, ciphertext) => {
    const plaintext = decrypt(RunPlaintext, run, ciphertext);
    return plaintext === undefined ? undefined : { request: plaintext.asked, signIn: plaintext.sign_in };
  };
  const decryptProgram: RunEncryption['decryptProgram'] = (run, ciphertext) => {
    const decrypted = decryptRun(run, ciphertext);
    return decrypted === undefined
      ? decrypt(ProgramPlaintext, run, ciphertext)?.program
      : toRunProgram(decrypted.request);
  };

  return {
    encryptRun(run, request, { sessionId, keycloakSessionId, token, signedInAtMs }) {
      const signIn = { sessionId, keycloakSessionId, tokenId: token?.id ?? null, signedInAtMs };
      return encrypt({ ...toBinding(run), kind: 'run', asked: request, sign_in: signIn });
    },
    decryptRun,
    reencryptProgram(run, ciphertext) {
      const program = decryptProgram(run, ciphertext);
      return program === undefined
        ? ciphertext
        : encrypt({ ...toBinding(run), kind: 'run_program', program });
    },
    decryptProgram,
    encryptEvents(run, numbered) {
      const [first, last] = [numbered[0]?.seq ?? 0, numbered.at(-1)?.seq ?? 0];
      const events = numbered.map((each) => ({ seq: each.seq, event: toWireEvent(each.event) }));
      return {
        firstSeq: first,
        lastSeq: last,
        bytes: numbered.map((each) => countOutputBytes(each.event)).reduce(addByteCounts, NO_BYTES),
        ciphertext: encrypt({ ...toBinding(run), kind: 'run_events', first, events }),
      };
    },
    decryptEvents(run, batch) {
      const plaintext = decrypt(EventsPlaintext, run, batch.ciphertext);
      if (plaintext?.first !== batch.firstSeq) return undefined;
      return plaintext.events.map(({ seq, event }) => ({ seq, event: fromWireEvent(event) }));
    },
  };
}

/** SHA-256 of the code or the command alone, in hex: the same program always has the same hash. */
export function hashProgram(program: Program): string {
  return createHash('sha256')
    .update('code' in program ? program.code : program.command)
    .digest('hex');
}
