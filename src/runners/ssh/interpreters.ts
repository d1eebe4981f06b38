import type { SshConfig } from '../../lib/ssh/config.ts';
import type { SshInterpreters } from '../../lib/ssh/program-settings.ts';
import { createRedactor } from '../../lib/redact.ts';
import { toVisibleText } from '../../lib/visible-text.ts';
import { LANGUAGES, type Language, type Program } from '../runner.ts';
import { getInterpreter, INTERPRETERS } from '../shell.ts';

/** The programs that a host is searched for to run a program, the preferred first. */
export function listProgramNames(program: Program, interpreters: SshInterpreters): readonly string[] {
  const chosen = 'command' in program ? null : (interpreters?.[program.language] ?? null);
  return chosen === null ? getInterpreter(program).names : [chosen];
}

/** Why code of a language was not run, for users. */
export function createMissingInterpreterMessage(interpreters: SshInterpreters, language: Language): string {
  const member = `interpreters.${language}`;
  const chosen = interpreters?.[language] ?? null;
  const [name] = INTERPRETERS[language].names;
  if (chosen === null)
    return (
      `The server has no interpreter for ${language}: searched for ${INTERPRETERS[language].names.join(' and ')} on the ` +
      `PATH of commands that are run over SSH. Install ${name}, set ${member} of the server to the path of the program, ` +
      'or set PATH in its environment.'
    );
  const reason = chosen.startsWith('/')
    ? 'is no file on the server that the account may run'
    : 'is not on the PATH of commands that are run over SSH';
  return `The server has no interpreter for ${language}: ${chosen}, which ${member} of the server names, ${reason}. Correct it, or clear it to use ${name}.`;
}

/** A part of a command that prints the interpreters of a host, two lines for each language; see {@link describeInterpreters}. */
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

export function createInterpreterProbe(interpreters: SshInterpreters): InterpreterProbe {
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

/**
 * Says which program and version each language has, e.g. `python: /usr/bin/python3 3.12.1; javascript: none; bash: ...`.
 * Of a program whose path contains a secret of the server it gives the name alone.
 * @param output of a probe, which may be incomplete.
 */
export function describeInterpreters(output: string, config: SshConfig): string {
  const lines = output.split('\n');
  const hasSecret = createSecretCheck(config);
  return LANGUAGES.map((language, index) => {
    // The last text has no end of line yet.
    const [path, version] = lines.slice(0, -1).slice(index * 2, index * 2 + 2);
    const names = listProgramNames({ language, code: '' }, config.interpreters);
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

/** Whether a text contains a secret of a server. Single folders of PATH are none. */
function createSecretCheck(config: SshConfig): (text: string) => boolean {
  const { password, private_key: key, passphrase, environment } = config;
  const { PATH: searchPath = '', ...others } = environment ?? {};
  const secrets = [password, passphrase, ...(key ?? '').split('\n'), ...Object.values(others)];
  const redact = createRedactor(secrets.filter((secret) => typeof secret === 'string'));
  return (text) => redact(text) !== text || (searchPath !== '' && text.includes(searchPath));
}
