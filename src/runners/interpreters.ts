import { createRedactor } from '../lib/redact.ts';
import { toVisibleText } from '../lib/visible-text.ts';
import { LANGUAGES, type Language, type Program } from './runner.ts';
import { getInterpreter, INTERPRETERS } from './shell.ts';

/** Programs that a user chose for languages, as names or absolute paths. */
export type ChosenInterpreters =
  Readonly<Partial<Record<Language, string | null | undefined>>> | null | undefined;

/** The programs that a host is searched for to run a program, the preferred first. */
export function listProgramNames(program: Program, interpreters: ChosenInterpreters): readonly string[] {
  const chosen = 'command' in program ? null : (interpreters?.[program.language] ?? null);
  return chosen === null ? getInterpreter(program).names : [chosen];
}

/** A part of a command that prints the interpreters of a host or container, two lines for each language. */
export interface InterpreterProbe {
  /** A constant text. */
  command: string;
  /** Holds the programs that the user chose, so that they are data. */
  env: Record<string, string>;
}

const PROBE_FUNCTIONS = `
look() { case $1 in /*) [ -f "$1" ] && [ -x "$1" ] && printf "%s\\n" "$1" ;; *) command -v "$1" ;; esac; }
show() {
  for name do
    found=$(look "$name") || continue
    printf "%s\\n" "$found"
    "$name" --version </dev/null 2>&1 | { IFS= read -r line; printf "%.200s\\n" "$line"; }
    return
  done
  printf "\\n\\n"
}`;

export function createInterpreterProbe(interpreters: ChosenInterpreters): InterpreterProbe {
  const env: Record<string, string> = {};
  const calls = LANGUAGES.map((language) => {
    const chosen = interpreters?.[language] ?? null;
    if (chosen === null) return `show ${INTERPRETERS[language].names.join(' ')}`;
    const variable = `OPS_TEST_${language.toUpperCase()}`;
    env[variable] = chosen;
    return `show "$${variable}"`;
  });
  return { command: [PROBE_FUNCTIONS, ...calls].join('\n'), env };
}

/** Whether a probe has printed everything. */
export function isInterpreterProbeComplete(output: string): boolean {
  return output.split('\n').length > LANGUAGES.length * 2;
}

/** What must be known of a server to show its interpreters. */
export interface InterpreterSettings {
  interpreters: ChosenInterpreters;
  /** Values that are not shown. */
  secrets: readonly (string | null | undefined)[];
  /** Variables of runs, which are secrets. Single folders of PATH are none. */
  environment: Readonly<Record<string, string>> | null | undefined;
}

/**
 * The finding of the test stage `echo`: which program and version each language has, e.g. `python: /usr/bin/python3 3.12.1;
 * javascript: none; bash: ...`. Of a program whose path contains a secret of the server it gives the name alone.
 * @param output of a probe, which may be incomplete.
 */
export function createEchoMessage(output: string, settings: InterpreterSettings): string {
  return `The output of a program arrives unchanged. Interpreters: ${describeInterpreters(output, settings)}.`;
}

export function describeInterpreters(output: string, settings: InterpreterSettings): string {
  const lines = output.split('\n');
  const hasSecret = createSecretCheck(settings);
  return LANGUAGES.map((language, index) => {
    // The last text has no end of line yet.
    const [path, version] = lines.slice(0, -1).slice(index * 2, index * 2 + 2);
    const names = listProgramNames({ language, code: '' }, settings.interpreters);
    return `${language}: ${describeProgram(path, version, names, hasSecret)}`;
  }).join('; ');
}

const MAX_PROGRAM_LENGTH = 80;
/** Behind words such as `Python` and `GNU bash, version`: other lines are errors. */
const VERSION = /^[A-Za-z ,]*?(\d{1,6}(?:\.\d{1,6}){0,3})/;

function describeProgram(
  path: string | undefined,
  version: string | undefined,
  names: readonly string[],
  hasSecret: (text: string) => boolean,
): string {
  if (path === undefined) return 'not known, since a program did not print its version in time';
  if (path === '') return 'none';
  const number = VERSION.exec(version ?? '')?.[1];
  const numberText = number === undefined || hasSecret(number) ? 'of unknown version' : number;
  const name = names.find((each) => path === each || path.endsWith(`/${each}`)) ?? names[0] ?? 'a program';
  const visiblePath = toVisibleText(path);
  const shown = hasSecret(path) || hasSecret(visiblePath) ? name : visiblePath;
  return `${shorten(shown, MAX_PROGRAM_LENGTH - numberText.length - 1)} ${numberText}`;
}

/** Keeps the end, which has the name of the program. */
function shorten(text: string, maxLength: number): string {
  const characters = Array.from(text);
  return characters.length <= maxLength ? text : `…${characters.slice(1 - maxLength).join('')}`;
}

/** The words of a set-up that can be secrets: not the paths, whose folders are those of the interpreters. */
export function listSetupSecrets(setup: string | null): string[] {
  return (setup ?? '').split(/[\s"'=;:]+/).filter((word) => word !== '' && !word.includes('/'));
}

function createSecretCheck({ secrets, environment }: InterpreterSettings): (text: string) => boolean {
  const { PATH: searchPath = '', ...others } = environment ?? {};
  const values = [...secrets, ...Object.values(others)];
  const redact = createRedactor(values.filter((value) => typeof value === 'string'));
  return (text) => redact(text) !== text || (searchPath !== '' && text.includes(searchPath));
}
