import { z } from 'zod';
import { parseJson } from '../../lib/json.ts';
import type { Engine } from './engine.ts';
import { DockerError, EngineResponseError } from './errors.ts';

const progressLine = z.object({ error: z.string().nullish(), errorDetail: z.unknown().optional() });

/**
 * Pulls an image that the engine does not have.
 * @throws DockerError if the registry refuses; errors of the engine; the reason of `signal`.
 */
export async function pullImage(engine: Engine, image: string, signal: AbortSignal): Promise<void> {
  try {
    for await (const line of engine.pull(image, signal)) {
      const failure = findPullFailure(line);
      if (failure !== undefined) throw toPullError(image, failure);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof EngineResponseError ? toPullError(image, error.responseText) : error;
  }
}

function findPullFailure(line: string): string | undefined {
  return progressLine.safeParse(parseJson(line)).data?.error ?? undefined;
}

function toPullError(image: string, failure: string): DockerError {
  const start = `The image ${image} is not on the engine and cannot be pulled:`;
  if (/not found|manifest unknown|does not exist|access denied|unauthorized/i.test(failure))
    return new DockerError(`${start} its registry does not have it, or requires a login.`);
  if (/no space left/i.test(failure)) return new DockerError(`${start} the engine's host has no space left.`);
  return new DockerError(
    `${start} the engine cannot reach the registry. Load the image on the engine, or choose another.`,
  );
}
