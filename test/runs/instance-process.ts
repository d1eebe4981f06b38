/**
 * A child process with one run service. It reads a JSON command per line of its input, and writes a JSON reference of
 * the started run per line of its output. It exits when its input ends, or when it is killed.
 */
import { createInterface } from 'node:readline';
import type { Principal } from '../../src/http/principal.ts';
import { createInstance, submit, type InstanceOptions } from './instance.ts';

/** The set `scopes` is lost in JSON; it is not used here. */
export interface StartCommand {
  principal: Principal;
  command: string;
}

if (process.env['RUNS_INSTANCE'] !== undefined) {
  const instance = createInstance(JSON.parse(process.env['RUNS_INSTANCE']) as InstanceOptions);
  await instance.start();
  for await (const line of createInterface({ input: process.stdin })) {
    const { principal, command } = JSON.parse(line) as StartCommand;
    const run = await submit(instance, principal, command);
    process.stdout.write(`${JSON.stringify(run)}\n`);
  }
  await instance.close();
}
