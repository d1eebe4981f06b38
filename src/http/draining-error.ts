import { AppError } from '../lib/errors.ts';

/** The refusal of a process that is about to stop. Its client is to try another connection, which may lead elsewhere. */
export function drainingError(): AppError {
  return new AppError('draining', 'This server is stopping. Try again.', {
    headers: { 'retry-after': '1', connection: 'close' },
  });
}
