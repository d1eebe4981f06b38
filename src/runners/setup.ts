import { randomBytes } from 'node:crypto';
import { createMarkerReader } from './marker-stream.ts';
import type { ExitEvent, OutputStream, RunEvent } from './runner.ts';
import type { Interpreter } from './shell.ts';

/** The set-up of one run. */
export interface Setup {
  /** To add to the variables of the job: no process list shows them. {@link SETUP_SCRIPT} unsets them. */
  env: Readonly<Record<string, string>>;
  /** Begins the markers that the script writes to standard error. */
  markerPrefix: Buffer;
}

/** The shells that can run {@link SETUP_SCRIPT}, the preferred first: users write `source` and other things of bash. */
export const SETUP_SHELLS = ['bash', 'sh'] as const;

/**
 * Runs the set-up and then becomes the program, which so has the variables and the folder that the set-up leaves.
 * Arguments: two names of the program's interpreter, of which the second may be empty; its options; its last argument.
 * The interpreter is searched for after the set-up, which may change PATH.
 *
 * The set-up has empty input, so that it does not read that of the program, and no arguments, since scripts that it
 * sources would read them. It runs outside of functions, where `declare` sets what the program inherits. Of the marker
 * `done` the program has nothing: the set-up alone could write it. Without it the set-up has failed, however it ended.
 *
 * Names begin with ops_, so that the set-up does not change them by accident. Nothing is assigned after it but what is
 * unset, because the set-up may have said `set -a`.
 */
export const SETUP_SCRIPT = `
exec 7>&2 8<&0 </dev/null
set +a
unset ops_setup ops_name ops_other ops_flags ops_last ops_code
ops_setup=$OPS_SETUP ops_name=$1 ops_other=$2 ops_flags=$3 ops_last=$4
unset OPS_SETUP
set --
command -v source >/dev/null || eval 'source() { . "$@"; }'
eval "\${ops_setup#* }"
ops_code=$?
[ "$ops_code" = 0 ] || exit "$ops_code"
for ops_name in "$ops_name" "$ops_other" ""; do
  case $ops_name in
    /*) if [ -f "$ops_name" ] && [ -x "$ops_name" ]; then break; fi ;;
    ?*) if command -v "$ops_name" >/dev/null; then break; fi ;;
  esac
done
ops_code=done
[ -n "$ops_name" ] || ops_code=missing
printf '\\036%s%s\\n' "\${ops_setup%% *}" "$ops_code" >&7
[ -n "$ops_name" ] || exit 127
unset IFS
set -- "$ops_name" $ops_flags "$ops_last"
unset ops_setup ops_name ops_other ops_flags ops_last ops_code
exec "$@" <&8 7>&- 8<&-
`;

/** The name of the process meanwhile, and of its messages. */
const SETUP_NAME = 'ops-setup';

/** Arguments of one of {@link SETUP_SHELLS} that run the set-up and then the interpreter with an argument. */
export function createSetupArguments(
  { names, flags }: Pick<Interpreter, 'flags'> & { names: readonly string[] },
  last: string,
): string[] {
  const [name = '', other = ''] = names;
  return ['-c', SETUP_SCRIPT, SETUP_NAME, name, other, flags.join(' '), last];
}

/** @param line of a server's `connection_config`. @returns undefined for a server without a set-up. */
export function createSetup(line: string | null | undefined): Setup | undefined {
  if (line === null || line === undefined) return undefined;
  const nonce = randomBytes(16).toString('hex');
  return { env: { OPS_SETUP: `${nonce} ${line}` }, markerPrefix: Buffer.from(`\x1e${nonce}`) };
}

/** `running` until a marker arrives; `missing`: after the set-up the interpreter was not found. */
type SetupState = 'running' | 'done' | 'missing';

/** Separates the markers of {@link SETUP_SCRIPT} from the output of a run. */
export interface SetupReader {
  /** @returns the output without markers. */
  read(stream: OutputStream, data: Uint8Array): Uint8Array[];
  /** Call at the end of the run. @returns held bytes of standard error. */
  flush(): Uint8Array;
  state(): SetupState;
}

export function createSetupReader({ markerPrefix }: Setup): SetupReader {
  let state: SetupState = 'running';
  const reader = createMarkerReader(markerPrefix, (text) =>
    text === 'done' || text === 'missing' ? text : undefined,
  );
  return {
    read(stream, data) {
      if (stream === 'stdout') return [data];
      return reader.read(Buffer.from(data)).filter((item) => {
        if (Buffer.isBuffer(item)) return true;
        state = item;
        return false;
      }) as Buffer[];
    },
    flush: () => reader.flush(),
    state: () => state,
  };
}

/** Why a run ended before its program, for users. The run's output has that of the set-up. */
export const SETUP_FAILED =
  'The set-up of the server (setup in its connection_config) failed, so the program did not start. The set-up must end ' +
  'with exit code 0: try its commands on the server, then correct or clear it.';

/**
 * Runs a job with the set-up of its server.
 * @param line of the server's `connection_config`.
 * @param missingMessage for a program whose interpreter is not found after the set-up, for users.
 */
export function runWithSetup(
  line: string | null | undefined,
  missingMessage: string,
  run: (setup: Setup | undefined) => AsyncGenerator<RunEvent, void>,
): AsyncGenerator<RunEvent, void> {
  const setup = createSetup(line);
  return setup === undefined ? run(setup) : readRun(createSetupReader(setup), run(setup), missingMessage);
}

async function* readRun(
  reader: SetupReader,
  events: AsyncGenerator<RunEvent, void>,
  missingMessage: string,
): AsyncGenerator<RunEvent, void> {
  for await (const event of events) {
    if (event.type === 'output') {
      for (const data of reader.read(event.stream, event.data))
        yield { type: 'output', stream: event.stream, data };
    } else if (event.type === 'exit') {
      const data = reader.flush();
      if (data.length > 0) yield { type: 'output', stream: 'stderr', data };
      yield toSetupExit(event, reader.state(), missingMessage);
    } else yield event;
  }
}

function toSetupExit(exit: ExitEvent, state: SetupState, missingMessage: string): ExitEvent {
  if (state === 'done' || (exit.cause !== 'exited' && exit.cause !== 'signal')) return exit;
  if (state === 'running') return { ...exit, message: SETUP_FAILED };
  return { ...exit, cause: 'infrastructure', code: null, signal: null, message: missingMessage };
}
