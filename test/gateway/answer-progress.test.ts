import { describe, expect, it } from '@jest/globals';
import { createAnswerProgress } from '../../src/gateway/answer-progress.ts';
import { openAiChat } from '../../src/gateway/surfaces/openai-chat/surface.ts';
import type { Receipt } from '../../src/gateway/upstream/response-headers.ts';
import type { SendOutcome } from '../../src/gateway/upstream/send-response.ts';
import { AppError } from '../../src/lib/errors.ts';
import { createRedactor } from '../../src/lib/redact.ts';

const SECRET = 'sk-0123456789abcdef';
const receipt: Receipt = {
  ...{
    provider: 'openai',
    model: 'gpt-4o',
    scope: 'personal' as const,
    keyId: 'k',
    endpointSlug: null,
    attempts: 1,
  },
  ...{ reason: null, upstreamRequestId: null },
};
const open = new AbortController().signal;
const aborted = AbortSignal.abort();

const begin = () => {
  const answer = createAnswerProgress(openAiChat);
  answer.beginAttempt(receipt);
  answer.beginAnswer(createRedactor([SECRET]));
  return answer;
};

describe('what the ledger learns of an answer', () => {
  it.each([SECRET, `echo ${SECRET}`, Buffer.from(SECRET).toString('base64')])(
    'has no model with the secret of the call in it: %s',
    (model) => {
      const answer = begin();
      answer.readEvent({ model, choices: [], usage: { prompt_tokens: 1, completion_tokens: 2 } });
      expect(answer.usage).toMatchObject({ servedModel: null, inputTokens: 1, outputTokens: 2 });
    },
  );

  it.each([
    ['json', 'whole', open, 'done'],
    ['json', 'whole', aborted, 'done'],
    ['stream', 'done', open, 'done'],
    ['stream', 'incomplete', open, 'incomplete'],
    ['stream', 'failed', open, 'failed'],
    ['stream', 'failed', aborted, 'cancelled'],
    ['error', 'whole', open, 'failed'],
    [undefined, undefined, open, 'failed'],
    [undefined, undefined, aborted, 'cancelled'],
  ] as const)('kind %s, outcome %s: %#', (kind, outcome: SendOutcome | undefined, signal, end) => {
    const answer = begin();
    if (kind !== undefined && outcome !== undefined) answer.endAnswer(kind, outcome);
    expect(answer.toEnd(signal)).toBe(end);
  });

  it('keeps the status of an attempt that fails in its stream', () => {
    const answer = begin();
    answer.endAttempt({ status: 200 });
    answer.failAttempt(new AppError('upstream_unreachable', 'x'), open);
    expect(answer.attempts).toMatchObject([{ status: 200, fault: 'upstream_unreachable', keyId: 'k' }]);
  });
});
