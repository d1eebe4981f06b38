import type { ListedEvent } from '../../api/audit.ts';
import { auditTexts as texts } from '../../texts/audit.ts';

export interface Names {
  userId: string;
  /** Name of each object that still exists, by its id in the audit trail, e.g. `key:openai/3f`. */
  objects: ReadonlyMap<string, string>;
}

/** @returns the event as a sentence: "You added the key OpenAI “Work”". */
export function describeEvent(
  { actor, action, object, count }: ListedEvent,
  { userId, objects }: Names,
): string {
  const [kind = '', ...rest] = object.split(':');
  const name = objects.get(object) ?? rest.join(':');
  const shown = texts.objects[kind]?.(name) ?? object;
  const sentence = `${describeActor(actor, userId)} ${texts.describe(action, shown)}`;
  return count > 1 ? `${sentence}, ${texts.times(count)}` : sentence;
}

function describeActor(actor: string, userId: string): string {
  if (actor === `user:${userId}`) return texts.you;
  const [kind, id = ''] = actor.split(':');
  return kind === 'system' ? texts.system(id) : texts.administrator(actor);
}
