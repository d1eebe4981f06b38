import { z } from 'zod';

const MAX_VALUE_LENGTH = 32_768;
const MAX_VARIABLES = 64;

/** A name that every shell accepts. */
export const variableName = z
  .string()
  .regex(
    /^[A-Za-z_][A-Za-z0-9_]{0,127}$/,
    'A variable name holds only letters, digits and _, and does not begin with a digit.',
  );

/** Variables of every run on a server. They may hold secrets. @param name the names that the server accepts. */
export function environmentSchema(name: typeof variableName) {
  const value = z
    .string()
    .max(MAX_VALUE_LENGTH)
    .refine((text) => !text.includes('\0'), 'A value must not contain a zero byte.');
  return z
    .record(name, value)
    .refine((all) => Object.keys(all).length <= MAX_VARIABLES, `At most ${MAX_VARIABLES} variables.`)
    .nullable()
    .default(null);
}
