import { z } from 'zod';

const MAX_SETUP_LENGTH = 4_096;

/**
 * Shell text that runs first in every run on a server, e.g. `source ~/venv/bin/activate`. It may hold secrets. An empty
 * form field counts as left out.
 */
export const setupLine = z
  .string()
  .max(MAX_SETUP_LENGTH)
  .refine((text) => !text.includes('\0'), 'A set-up must not contain a zero byte.')
  .nullable()
  .default(null)
  .transform((text) => (text?.trim() === '' ? null : text));
