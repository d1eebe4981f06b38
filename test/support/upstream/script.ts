import { answer } from './answers.ts';
import type { Answer } from './response-writer.ts';
import type { RecordedRequest } from './recorded-request.ts';

/** The answers of the upstream. Answers for a key have priority over the queue, the queue over the default. */
export interface Script {
  queue(answers: readonly Answer[]): void;
  setDefault(defaultAnswer: Answer): void;
  setKey(key: string, answers: readonly Answer[]): void;
  /** Removes and returns the answer for a request. A key's last answer and the default stay. */
  take(request: RecordedRequest): Answer;
  clear(): void;
}

/** @param keys the valid keys; undefined means any. */
export function createScript(keys: readonly string[] | undefined): Script {
  const queued: Answer[] = [];
  const byKey = new Map<string, Answer[]>();
  let customDefault: Answer | undefined;

  function nextForKey(key: string | undefined): Answer | undefined {
    const answers = key === undefined ? undefined : byKey.get(key);
    return answers !== undefined && answers.length > 1 ? answers.shift() : answers?.[0];
  }

  return {
    queue: (answers) => queued.push(...answers),
    setDefault(answerOfAll) {
      customDefault = answerOfAll;
    },
    setKey: (key, answers) => byKey.set(key, [...answers]),
    take(request) {
      return nextForKey(request.key) ?? queued.shift() ?? customDefault ?? builtInAnswer(request, keys);
    },
    clear() {
      queued.length = 0;
      byKey.clear();
      customDefault = undefined;
    },
  };
}

function builtInAnswer(request: RecordedRequest, keys: readonly string[] | undefined): Answer {
  if (keys !== undefined && !keys.includes(request.key ?? '')) return answer.error(401);
  const path = request.path.split('?', 1)[0] ?? '';
  if (request.method === 'GET' && path.endsWith('/models')) return answer.models();
  if (request.method === 'POST' && path.endsWith('/messages/count_tokens'))
    return answer.reply({ body: { input_tokens: 11 } });
  if (request.method === 'POST' && /\/(chat\/completions|messages)$/.test(path)) return answer.completion();
  return answer.error(404, { message: `Invalid URL (${request.method} ${path})`, code: null });
}
