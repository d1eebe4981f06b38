import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants, setPriority } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** What an attacker does. */
export interface Load {
  /** The file in `attackers/`, without its ending. */
  attacker: string;
  /** The argument of its `begin`; sent as JSON. */
  settings: object;
}

const PROGRAM = fileURLToPath(new URL('attacker.ts', import.meta.url));

/**
 * Starts an attacker as a process of its own, so that the work of sending is not measured. It has the lowest priority,
 * because attackers are on other machines: they take the app's time, but not its processors.
 * Resolves when the load is complete.
 * @returns ends the load, waits until nothing of it is left, and returns what the attacker got.
 */
export async function startAttack({ attacker, settings }: Load): Promise<() => Promise<string>> {
  const child = spawn(process.execPath, [PROGRAM, attacker], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  setPriority(child.pid ?? 0, constants.priority.PRIORITY_LOW);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const readLine = async () => {
    const line = await lines.next();
    if (line.done === true) throw new Error(`the attacker ${attacker} has exited`);
    return line.value;
  };
  child.stdin.write(`${JSON.stringify(settings)}\n`);
  await readLine();
  return async () => {
    child.stdin.end();
    const result = await readLine();
    await exited;
    return result;
  };
}
