import { AppError } from '../lib/errors.ts';

/** The error of a process that is about to stop. The client should retry on a new connection, which may reach another instance. */
export function drainingError(): AppError {
  return new AppError('draining', 'This server is stopping. Try again.', {
    headers: { 'retry-after': '1', connection: 'close' },
  });
}
