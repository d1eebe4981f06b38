import { randomBytes } from 'node:crypto';
import type { RunEvent, Target } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { nameOf } from './containers.ts';
import type { Engine } from './engine.ts';
import { DockerFault } from './faults.ts';
import { readOutput } from './output.ts';
import { endOf } from './run.ts';
import { quote, writeScript, type ScriptRecord } from './script.ts';
import { detach, openSession, removeRun, sweep, type Session } from './session.ts';
import type { Step } from './steps.ts';

/** The stages of a test that need a container. */
export interface Probe {
  steps: readonly Step[];
  /** Removes whatever is left of it. */
  close(): Promise<void>;
}

/** The launcher, what watches its input, the program, and its child. */
const LEAST_PROCESSES = 4;

/** One job that says something, leaves its session, and would run on. */
export function createProbe(engine: Engine, target: Target<DockerConfig>, instance: string): Probe {
  const nonce = randomBytes(16).toString('hex');
  const runId = `test-${nonce}`;
  const script = writeScript(probeJob(runId, nonce), target.workspacePath, target.config.environment ?? {});
  const records = new Set<ScriptRecord>();
  let session: Session | undefined;
  let events: AsyncGenerator<RunEvent, void> | undefined;
  let said = '';

  const opened = () => {
    if (session === undefined || events === undefined) throw new Error('the stages have an order');
    return { session, events };
  };

  async function prepare(signal: AbortSignal): Promise<string> {
    const request = { target, limits: null, purpose: 'test', name: nameOf(runId), runId, instance } as const;
    session = await openSession(engine, request, signal);
    events = readOutput(session, script.mark, records);
    session.stream.write(script.text);
    const first = await events.next();
    if (first.done !== true) return 'A container was started with image, volumes and working folder.';
    const { message } = await endOf(engine, session, { ...script, records });
    throw new DockerFault(message ?? 'The container ended before the program started.');
  }

  async function echo(): Promise<string> {
    const { events } = opened();
    while (!said.includes('\n')) {
      const next = await events.next();
      if (next.done === true) break;
      if (next.value.type === 'output') said += Buffer.from(next.value.data).toString('latin1');
      if (said.length > 4_096) break;
    }
    if (said.trim() !== nonce)
      throw new DockerFault(
        "A program's output did not come back unchanged. Look for an entry in the image that prints.",
      );
    return 'What a program prints comes back unchanged.';
  }

  async function kill(): Promise<string> {
    const { session } = opened();
    if ((await engine.countProcesses(session.id)) < LEAST_PROCESSES)
      throw new DockerFault('The engine does not show the processes of a container.');
    await engine.kill(session.id);
    await session.waiting.code;
    if ((await engine.inspect(session.id))?.isRunning !== false)
      throw new DockerFault('The container could not be killed.');
    return 'A process that had left its session was ended.';
  }

  async function clean(): Promise<string> {
    await sweep(engine, target);
    if ((await removeRun(engine, target, runId)) === 'unverified')
      throw new DockerFault(`A container of this test may be left. Its name begins with ${nameOf(runId)}.`);
    return 'Nothing of the test is left on the engine.';
  }

  return {
    steps: [
      ['workspace', prepare],
      ['echo', echo],
      ['kill', kill],
      ['cleanup', clean],
    ],
    async close() {
      if (session !== undefined) detach(session);
      if (records.size > 0 || session !== undefined) await removeRun(engine, target, runId);
    },
  };
}

function probeJob(runId: string, nonce: string) {
  const command = [
    // In a session of its own, where the image has the program for it: no signal to a group would reach it.
    '{ setsid sleep 600 || sleep 600; } >/dev/null 2>&1 &',
    `printf '%s\\n' ${quote(nonce)}`,
    'sleep 600',
  ].join('\n');
  return { runId, program: { command }, stdin: null, files: [], env: {}, workdir: null };
}
