import { z } from 'zod';
import { environmentSchema, variableName } from '../environment-variables.ts';
import { refuseHiddenCharacters } from '../visible-text.ts';

const MAX_INTERPRETER_LENGTH = 1_024;
/** A name that a shell searches for, or an absolute path. A name that begins with `-` would be an option. */
const INTERPRETER = /^(?:[A-Za-z0-9_.+][A-Za-z0-9_.+-]*|\/.*)$/;
/** Read-only in shells: setting one ends some of them. */
const RESERVED_VARIABLES = new Set(['BASHOPTS', 'BASH_VERSINFO', 'EUID', 'PPID', 'SHELLOPTS', 'UID']);

/** Why a host's shell cannot set a variable, for users. */
export function findReservedVariableProblem(name: string): string | undefined {
  return RESERVED_VARIABLES.has(name)
    ? `The variable ${name} is reserved by the host's shell. Use another name.`
    : undefined;
}

/** An empty form field counts as left out. */
const interpreter = z
  .string()
  .max(MAX_INTERPRETER_LENGTH)
  .superRefine(refuseHiddenCharacters)
  .refine(
    (text) => text === '' || INTERPRETER.test(text),
    'Write the name of a program on the host, e.g. python3.12, or its absolute path, e.g. /opt/conda/bin/python3.',
  )
  .nullable()
  .default(null)
  .transform((text) => (text === '' ? null : text));

/** The program on the host that runs the code of each language; null for the usual names. */
export const sshInterpreters = z
  .strictObject({ python: interpreter, javascript: interpreter, bash: interpreter })
  .nullable()
  .default(null);

export type SshInterpreters = z.infer<typeof sshInterpreters>;

/** Variables of every run on a server. They may hold secrets. */
export const sshEnvironment = environmentSchema(
  variableName.superRefine((name, context) => {
    const message = findReservedVariableProblem(name);
    if (message !== undefined) context.addIssue({ code: 'custom', message });
  }),
);
