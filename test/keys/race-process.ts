/**
 * A child process with the key service. It reads one JSON command per line from stdin, executes the commands
 * concurrently, and writes one JSON result per line to stdout. It exits at the end of stdin.
 */
import { createInterface } from 'node:readline';
import { isAppError } from '../../src/lib/errors.ts';
import { createInstance, createPrincipal, type Instance, type InstanceOptions } from './instance.ts';

/** A command; its result has the same `name`. */
export type RaceCommand = { name: string; userId: string; provider: string } & (
  | { kind: 'add'; key: string; label: string; endpoint?: string }
  | { kind: 'replace'; key: string; keyId: string; endpoint?: string }
  | { kind: 'update'; keyId: string; label: string }
  | { kind: 'delete'; keyId: string }
);

export interface RaceResult {
  name: string;
  /** The error code; null on success. */
  code: string | null;
  /** Id of the key that was added, replaced, updated or deleted. */
  keyId: string | null;
}

async function execute(keys: Instance['keys'], command: RaceCommand): Promise<string | null> {
  const principal = createPrincipal(command.userId);
  const { provider, name } = command;
  switch (command.kind) {
    case 'add': {
      const { key, label, endpoint } = command;
      return (await keys.add(principal, { provider, key, label, endpoint }, name)).key.id;
    }
    case 'replace': {
      const { key, keyId, endpoint } = command;
      return (await keys.add(principal, { provider, key, key_id: keyId, endpoint }, name)).key.id;
    }
    case 'update':
      return (
        await keys.update(principal, { provider, keyId: command.keyId }, { label: command.label }, name)
      ).id;
    case 'delete':
      await keys.remove(principal, provider, command.keyId, name);
      return command.keyId;
  }
}

async function toResult(keys: Instance['keys'], command: RaceCommand): Promise<RaceResult> {
  try {
    return { name: command.name, code: null, keyId: await execute(keys, command) };
  } catch (error) {
    if (!isAppError(error)) throw error;
    return { name: command.name, code: error.code, keyId: null };
  }
}

if (process.env['RACE_OPTIONS'] !== undefined) {
  const instance = createInstance(JSON.parse(process.env['RACE_OPTIONS']) as InstanceOptions);
  const pending: Promise<void>[] = [];
  for await (const line of createInterface({ input: process.stdin })) {
    const running = toResult(instance.keys, JSON.parse(line) as RaceCommand);
    pending.push(
      running.then((result) => {
        process.stdout.write(`${JSON.stringify(result)}\n`);
      }),
    );
  }
  await Promise.all(pending);
  await instance.close();
}
