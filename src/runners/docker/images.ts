import { z } from 'zod';
import type { Engine } from './engine.ts';
import { DockerFault, EngineRefusal } from './faults.ts';

const progressLine = z.object({ error: z.string().nullish(), errorDetail: z.unknown().optional() });

/**
 * Fetches an image that the engine does not have.
 * @param onProgress called now and then, while something comes.
 * @throws DockerFault when the registry says no; what the engine throws; the reason of `signal`.
 */
export async function pullImage(engine: Engine, image: string, signal: AbortSignal): Promise<void> {
  try {
    for await (const line of engine.pull(image, signal)) {
      const said = readFailure(line);
      if (said !== undefined) throw pullFault(image, said);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof EngineRefusal ? pullFault(image, error.said) : error;
  }
}

function readFailure(line: string): string | undefined {
  try {
    return progressLine.parse(JSON.parse(line)).error ?? undefined;
  } catch {
    return undefined;
  }
}

function pullFault(image: string, said: string): DockerFault {
  const start = `The image ${image} is not on the engine, and could not be fetched:`;
  if (/not found|manifest unknown|does not exist|access denied|unauthorized/i.test(said))
    return new DockerFault(`${start} its registry does not have it, or wants a login.`);
  if (/no space left/i.test(said)) return new DockerFault(`${start} the engine's host has no space left.`);
  return new DockerFault(
    `${start} the engine does not reach the registry. Load the image there, or name another.`,
  );
}
