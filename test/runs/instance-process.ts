/**
 * A process of its own with one instance of runs, told what to do: a JSON command per line of its input, the id
 * of the run that it started per line of its output. It ends when its input ends, or when it is killed.
 */
import { createInterface } from 'node:readline';
import type { Principal } from '../../src/http/principal.ts';
import { createInstance, submit, type InstanceOptions } from './instance.ts';

/** `scopes` does not survive JSON, and nothing here asks for it. */
export interface StartCommand {
  principal: Principal;
  command: string;
}

if (process.env['RUNS_INSTANCE'] !== undefined) {
  const instance = createInstance(JSON.parse(process.env['RUNS_INSTANCE']) as InstanceOptions);
  await instance.runs.start();
  for await (const line of createInterface({ input: process.stdin })) {
    const { principal, command } = JSON.parse(line) as StartCommand;
    const run = await submit(instance, principal, command);
    process.stdout.write(`${JSON.stringify(run)}\n`);
  }
  await instance.close();
}
