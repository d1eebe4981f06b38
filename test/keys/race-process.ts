/**
 * One process's worth of the key service, told what to do: a JSON command per line of its input, each carried
 * out at once beside the others, a JSON answer per line of its output. It ends when its input ends or when it
 * is killed.
 */
import { createInterface } from 'node:readline';
import { isAppError } from '../../src/lib/errors.ts';
import { createInstance, createPrincipal, type Instance, type InstanceOptions } from './instance.ts';

/** What is to be done, by the name under which its answer comes back. */
export type RaceCommand = { name: string; userId: string; provider: string } & (
  | { kind: 'add'; key: string; label: string; endpoint?: string }
  | { kind: 'replace'; key: string; keyId: string; endpoint?: string }
  | { kind: 'update'; keyId: string; label: string }
  | { kind: 'delete'; keyId: string }
);

export interface RaceResult {
  name: string;
  /** The error's code; null when it was done. */
  code: string | null;
  /** Of the key that was added, replaced or changed. */
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
  const underWay: Promise<void>[] = [];
  for await (const line of createInterface({ input: process.stdin })) {
    const answering = toResult(instance.keys, JSON.parse(line) as RaceCommand);
    underWay.push(
      answering.then((answer) => {
        process.stdout.write(`${JSON.stringify(answer)}\n`);
      }),
    );
  }
  await Promise.all(underWay);
  await instance.close();
}
