import { isObject } from '../../../providers/provider.ts';
import type { StreamProgress } from '../../surface.ts';

/** OpenAI accepts `n` up to 128. More choices are not counted, so that an upstream cannot make the sets grow. */
const MAX_CHOICES = 128;

/** A stream is finished when every choice that has begun (`n` in the request) has its finish reason. */
export function createChatProgress(): StreamProgress {
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
    isFinished: () => begun.size > 0 && finished.size === begun.size,
  };
}
