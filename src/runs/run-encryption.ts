import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Principal } from '../http/principal.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Owner } from '../lib/owner.ts';
import { LANGUAGES, type Program } from '../runners/runner.ts';
import { countOutputBytes, addByteCounts, NO_BYTES, type NumberedEvent, type ByteCounts } from './events.ts';
import { StartRun } from './schema.ts';
import { fromWireEvent, StoredEvent, toWireEvent } from './wire-events.ts';

/** Which run: what is sealed for it opens in its place alone. */
export interface RunRef {
  id: string;
  owner: Owner;
}

/** The sign-in that a run was started under: it ends with it. */
const RunSignIn = z.object({
  sessionId: z.string().nullable(),
  keycloakSessionId: z.string().nullable(),
  signedInAtMs: z.number().optional(),
});
export type RunSignIn = z.output<typeof RunSignIn>;

const bindingFields = { v: z.literal(1), owner: z.string(), run: z.string() };
const ProgramSchema = z.union([
  z.object({ language: z.enum(LANGUAGES), code: z.string() }),
  z.object({ command: z.string() }),
]);
const RunPlaintext = z.object({
  ...bindingFields,
  kind: z.literal('run'),
  asked: StartRun,
  sign_in: RunSignIn,
});
const ProgramPlaintext = z.object({
  ...bindingFields,
  kind: z.literal('run_program'),
  program: ProgramSchema,
});
const EventsPlaintext = z.object({
  ...bindingFields,
  kind: z.literal('run_events'),
  first: z.number().int(),
  events: z.array(StoredEvent),
});

/** A batch of events as it is stored. */
export interface EncryptedBatch {
  firstSeq: number;
  lastSeq: number;
  bytes: ByteCounts;
  sealed: string;
}

/** Seals what is stored of runs, each piece together with whose it is and where it belongs. */
export interface RunEncryption {
  encryptRun(run: RunRef, asked: StartRun, principal: Principal): string;
  /** @returns undefined when it does not decrypt, or lies elsewhere than where it was sealed for. */
  decryptRun(run: RunRef, sealed: string): { asked: StartRun; signIn: RunSignIn } | undefined;
  /** What is kept of a run that is over. @returns the same text when it does not decrypt. */
  reencryptProgram(run: RunRef, sealedRun: string): string;
  /** The program of a run, over or not. */
  decryptProgram(run: RunRef, sealed: string): Program | undefined;
  encryptEvents(run: RunRef, news: readonly NumberedEvent[]): EncryptedBatch;
  decryptEvents(run: RunRef, batch: { firstSeq: number; sealed: string }): NumberedEvent[] | undefined;
}

export function createRunEncryption(keyring: Keyring): RunEncryption {
  const encrypt = (value: unknown) => keyring.encrypt(JSON.stringify(value));
  const toBinding = ({ id, owner }: RunRef) => ({ v: 1 as const, owner, run: id });

  function decrypt<T extends { owner: string; run: string }>(
    schema: z.ZodType<T>,
    run: RunRef,
    sealed: string,
  ): T | undefined {
    const found = schema.safeParse(parseJson(keyring.decrypt(sealed))).data;
    return found?.owner === run.owner && found.run === run.id ? found : undefined;
  }

  const decryptRun: RunEncryption['decryptRun'] = (run, sealed) => {
    const found = decrypt(RunPlaintext, run, sealed);
    return found === undefined ? undefined : { asked: found.asked, signIn: found.sign_in };
  };
  const decryptProgram: RunEncryption['decryptProgram'] = (run, sealed) => {
    const whole = decryptRun(run, sealed);
    return whole === undefined ? decrypt(ProgramPlaintext, run, sealed)?.program : toRunProgram(whole.asked);
  };

  return {
    encryptRun(run, asked, { sessionId, keycloakSessionId, signedInAtMs }) {
      const signIn = { sessionId, keycloakSessionId, signedInAtMs };
      return encrypt({ ...toBinding(run), kind: 'run', asked, sign_in: signIn });
    },
    decryptRun,
    reencryptProgram(run, sealedRun) {
      const own = decryptProgram(run, sealedRun);
      return own === undefined
        ? sealedRun
        : encrypt({ ...toBinding(run), kind: 'run_program', program: own });
    },
    decryptProgram,
    encryptEvents(run, news) {
      const [first, last] = [news[0]?.seq ?? 0, news.at(-1)?.seq ?? 0];
      const events = news.map((one) => ({ seq: one.seq, event: toWireEvent(one.news) }));
      return {
        firstSeq: first,
        lastSeq: last,
        bytes: news.map((one) => countOutputBytes(one.news)).reduce(addByteCounts, NO_BYTES),
        sealed: encrypt({ ...toBinding(run), kind: 'run_events', first, events }),
      };
    },
    decryptEvents(run, batch) {
      const found = decrypt(EventsPlaintext, run, batch.sealed);
      if (found?.first !== batch.firstSeq) return undefined;
      return found.events.map(({ seq, event }) => ({ seq, news: fromWireEvent(event) }));
    },
  };
}

export function toRunProgram({ language, code, command }: StartRun): Program {
  return language !== undefined && code !== undefined ? { language, code } : { command: command ?? '' };
}

/** Of the code or the command alone: the same program has the same hash everywhere. */
export function hashProgram(own: Program): string {
  return createHash('sha256')
    .update('code' in own ? own.code : own.command)
    .digest('hex');
}

function parseJson(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}
