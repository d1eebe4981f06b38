/**
 * The program of an attacker: `node attacker.ts <file in attackers/>`. It reads its settings as a line of JSON from stdin,
 * writes a line when the load is complete, ends the load at the end of stdin, and writes what it got as a line.
 */
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** Begins the load. @returns ends it, waits until nothing of it is left, and returns what the attacker got. */
export type BeginAttack<Settings> = (settings: Settings) => Promise<() => Promise<string>>;

const input = createInterface({ input: process.stdin });
const inputEnded = once(input, 'close');
const [settings] = (await once(input, 'line')) as [string];
const { begin } = (await import(`./attackers/${process.argv[2]}.ts`)) as { begin: BeginAttack<unknown> };
const end = await begin(JSON.parse(settings));
process.stdout.write('begun\n');
await inputEnded;
process.stdout.write(`${await end()}\n`);
