import type { Log } from '../lib/log.ts';

/**
 * Ends the process with code 1 after an error or a rejected promise that nothing has caught. The error is the last line
 * of the log. Node itself would print every property of the error, and errors of libraries contain whole requests with
 * credentials.
 * @param print receives a text that does not quote the error.
 */
export function endOnFatalError(log: Log, print: (text: string) => void): void {
  process.once('uncaughtException', (error) => {
    log.fatal({ event: 'fatal_error', err: error }, 'unexpected error; the process ends');
    print('Ops Center ends because of an unexpected error, which is the last line of its log.');
    process.exit(1);
  });
}
