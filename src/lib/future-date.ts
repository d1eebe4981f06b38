import { z } from 'zod';

/** A time in the future, for dates of expiry. Accepts any offset; the result is ISO 8601 in UTC. */
export const FutureDate = z.iso
  .datetime({ offset: true, error: 'must be a date and time with its offset, e.g. 2030-01-31T00:00:00Z' })
  .transform((text) => new Date(text).toISOString())
  // An offset can lead past the year 9999. ISO years with a sign could not be read back.
  .refine((text) => /^\d{4}-/.test(text), 'must lie before the year 10000')
  .refine((text) => Date.parse(text) > Date.now(), 'must lie in the future');
