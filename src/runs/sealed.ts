import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Principal } from '../http/principal.ts';
import type { Keyring } from '../lib/keyring.ts';
import type { Owner } from '../lib/owner.ts';
import { LANGUAGES, type Program } from '../runners/runner.ts';
import { tallyOf, addTallies, NO_BYTES, type NumberedNews, type Tally } from './events.ts';
import { StartRun } from './schema.ts';
import { newsOf, StoredEvent, wireEvent } from './wire-events.ts';

/** Which run: what is sealed for it opens in its place alone. */
export interface RunName {
  id: string;
  owner: Owner;
}

/** The sign-in that a run was started under: it ends with it. */
const SignIn = z.object({
  sessionId: z.string().nullable(),
  keycloakSessionId: z.string().nullable(),
  signedInAtMs: z.number().optional(),
});
export type SignIn = z.output<typeof SignIn>;

const place = { v: z.literal(1), owner: z.string(), run: z.string() };
const program = z.union([
  z.object({ language: z.enum(LANGUAGES), code: z.string() }),
  z.object({ command: z.string() }),
]);
const SealedRun = z.object({ ...place, kind: z.literal('run'), asked: StartRun, sign_in: SignIn });
const SealedProgram = z.object({ ...place, kind: z.literal('run_program'), program });
const SealedEvents = z.object({
  ...place,
  kind: z.literal('run_events'),
  first: z.number().int(),
  events: z.array(StoredEvent),
});

/** A batch of events as it is stored. */
export interface SealedBatch {
  firstSeq: number;
  lastSeq: number;
  bytes: Tally;
  sealed: string;
}

/** Seals what is stored of runs, each piece together with whose it is and where it belongs. */
export interface RunSeals {
  sealRun(run: RunName, asked: StartRun, principal: Principal): string;
  /** @returns undefined when it does not decrypt, or lies elsewhere than where it was sealed for. */
  openRun(run: RunName, sealed: string): { asked: StartRun; signIn: SignIn } | undefined;
  /** What is kept of a run that is over. @returns the same text when it does not decrypt. */
  sealProgramOf(run: RunName, sealedRun: string): string;
  /** The program of a run, over or not. */
  openProgram(run: RunName, sealed: string): Program | undefined;
  sealEvents(run: RunName, news: readonly NumberedNews[]): SealedBatch;
  openEvents(run: RunName, batch: { firstSeq: number; sealed: string }): NumberedNews[] | undefined;
}

export function createRunSeals(keyring: Keyring): RunSeals {
  const seal = (value: unknown) => keyring.seal(JSON.stringify(value));
  const placeOf = ({ id, owner }: RunName) => ({ v: 1 as const, owner, run: id });

  function open<T extends { owner: string; run: string }>(
    schema: z.ZodType<T>,
    run: RunName,
    sealed: string,
  ): T | undefined {
    const found = schema.safeParse(parseJson(keyring.open(sealed))).data;
    return found?.owner === run.owner && found.run === run.id ? found : undefined;
  }

  const openRun: RunSeals['openRun'] = (run, sealed) => {
    const found = open(SealedRun, run, sealed);
    return found === undefined ? undefined : { asked: found.asked, signIn: found.sign_in };
  };
  const openProgram: RunSeals['openProgram'] = (run, sealed) => {
    const whole = openRun(run, sealed);
    return whole === undefined ? open(SealedProgram, run, sealed)?.program : programOf(whole.asked);
  };

  return {
    sealRun(run, asked, { sessionId, keycloakSessionId, signedInAtMs }) {
      const signIn = { sessionId, keycloakSessionId, signedInAtMs };
      return seal({ ...placeOf(run), kind: 'run', asked, sign_in: signIn });
    },
    openRun,
    sealProgramOf(run, sealedRun) {
      const own = openProgram(run, sealedRun);
      return own === undefined ? sealedRun : seal({ ...placeOf(run), kind: 'run_program', program: own });
    },
    openProgram,
    sealEvents(run, news) {
      const [first, last] = [news[0]?.seq ?? 0, news.at(-1)?.seq ?? 0];
      const events = news.map((one) => ({ seq: one.seq, event: wireEvent(one.news) }));
      return {
        firstSeq: first,
        lastSeq: last,
        bytes: news.map((one) => tallyOf(one.news)).reduce(addTallies, NO_BYTES),
        sealed: seal({ ...placeOf(run), kind: 'run_events', first, events }),
      };
    },
    openEvents(run, batch) {
      const found = open(SealedEvents, run, batch.sealed);
      if (found?.first !== batch.firstSeq) return undefined;
      return found.events.map(({ seq, event }) => ({ seq, news: newsOf(event) }));
    },
  };
}

export function programOf({ language, code, command }: StartRun): Program {
  return language !== undefined && code !== undefined ? { language, code } : { command: command ?? '' };
}

/** Of the code or the command alone: the same program has the same hash everywhere. */
export function hashOf(own: Program): string {
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
