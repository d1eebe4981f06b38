import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import type { SshConfig, SshServer } from '../../../src/lib/ssh/config.ts';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import type { ExitEvent, Job, Limits, RunEvent, Runner, TargetServer } from '../../../src/runners/runner.ts';
import { createSshRunner } from '../../../src/runners/ssh/index.ts';
import type { FrameSecrets } from '../../../src/runners/ssh/session.ts';
import { afterThisTest, localDialer, withParsedConfig } from '../../lib/ssh/servers.ts';
import { until } from '../../support/until.ts';

export const LIMITS: Limits = {
  timeoutMs: 600_000,
  maxOutputBytes: 2 ** 30,
  memoryBytes: null,
  cpus: null,
  pids: null,
  network: null,
};

/** A runner that is closed after the test. */
export function openRunner(): Runner<SshConfig> {
  const dialer = localDialer();
  const runner = createSshRunner({ connections: createSshConnections({ dialer }) });
  afterThisTest(async () => {
    await runner.close();
    await dialer.close();
  });
  return runner;
}

export interface RunResult {
  output: string;
  phases: string;
  exit: ExitEvent | undefined;
}

export async function readAll(
  events: AsyncIterable<RunEvent>,
  onOutput: (output: string) => unknown = () => undefined,
): Promise<RunResult> {
  const read: RunResult = { output: '', phases: '', exit: undefined };
  for await (const event of events) {
    if (event.type === 'exit') read.exit = event;
    else if (event.type === 'phase') read.phases += ` ${event.phase}`;
    else {
      read.output += Buffer.from(event.data).toString();
      await onOutput(read.output);
    }
  }
  return read;
}

export const createJob = (overrides: Partial<Job>): Job => ({
  ...{ runId: randomUUID(), program: { command: 'true' }, stdin: null, files: [], env: {}, workdir: null },
  ...overrides,
});

/** The secrets of a job's frames, from its input. */
export function readSecrets(input: string): FrameSecrets {
  const lines = Array.from(input.matchAll(/^([0-9a-f]{32})([0-9a-f]{32})$/gm));
  const [[, marker = '', supervisorProof = ''] = [], [, , watcherProof = ''] = []] = lines;
  return { marker, supervisorProof, watcherProof };
}

/** The marker of a command that starts the launcher. */
export function readMarker(command: string): string {
  return / ([0-9a-f]{32}) /.exec(command)?.[1] ?? '';
}

/** The frame by which the launcher of a command reports that it runs. */
export function createReadyFrame(command: string): string {
  return `\x1e${readMarker(command)}R\n`;
}

/** The processes of this machine whose environment or command line holds a text. */
export function processesWith(text: string): string[] {
  return readdirSync('/proc').filter(
    (pid) =>
      /^\d+$/.test(pid) && ['environ', 'cmdline'].some((file) => read(`/proc/${pid}/${file}`).includes(text)),
  );
}

/** Waits until a run has processes on this machine. */
export const untilStarted = (runId: string) =>
  until(
    () => processesWith(runId),
    (found) => found.length > 0,
  );

/** Waits until a run has no process on this machine. */
export const untilEnded = (runId: string, timeoutMs?: number) =>
  until(
    () => processesWith(runId),
    (left) => left.length === 0,
    timeoutMs,
  );

function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

export const targetAt = (server: SshServer): TargetServer<SshConfig> => ({
  ...(withParsedConfig(server) as TargetServer<SshConfig>),
  workspacePath: null,
});
