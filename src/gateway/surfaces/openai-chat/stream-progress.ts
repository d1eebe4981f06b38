import { isObject } from '../../../providers/provider.ts';
import type { StreamProgress } from '../../surface.ts';

/** OpenAI accepts `n` up to 128. More choices are not counted, so that an upstream cannot make the sets grow. */
const MAX_CHOICES = 128;

/**
 * A stream is finished when as many choices as the client asked for, and every choice that has begun, have their finish
 * reason. Some servers begin a choice only after the one before it.
 */
export function createChatProgress(choiceCount: number): StreamProgress {
  const expectedCount = Math.min(Math.max(choiceCount, 1), MAX_CHOICES);
  const begun = new Set<unknown>();
  const finished = new Set<unknown>();
  return {
    add(value) {
      const choices = isObject(value) && Array.isArray(value['choices']) ? value['choices'] : [];
      for (const choice of choices.filter(isObject)) {
        const { index = 0, finish_reason: reason } = choice;
        if (begun.size < MAX_CHOICES) begun.add(index);
        // Some servers send an empty reason until the last chunk.
        if (typeof reason === 'string' && reason !== '' && begun.has(index)) finished.add(index);
      }
    },
    isFinished: () => finished.size >= expectedCount && finished.size === begun.size,
  };
}
