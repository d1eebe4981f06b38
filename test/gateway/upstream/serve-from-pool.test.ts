import { describe, expect, it } from '@jest/globals';
import { openAiChat } from '../../../src/gateway/surfaces/openai-chat/surface.ts';
import { isKeyRefusal } from '../../../src/gateway/upstream/serve-from-pool.ts';
import { custom } from '../../../src/providers/custom.ts';

/** Whether a 401 is about the key: without headers of the client that name an account, and with them. */
function judge(value: unknown, status = 401): [boolean, boolean] {
  const judgeWith = (forwardsAccountHeaders: boolean) =>
    isKeyRefusal(
      { kind: 'error', status, headers: {}, isPublic: true, value },
      { surface: openAiChat, provider: custom, forwardsAccountHeaders },
    );
  return [judgeWith(false), judgeWith(true)];
}

describe('isKeyRefusal', () => {
  it.each<[string, unknown]>([
    ['OpenAI', { error: { message: 'Incorrect API key provided: sk-1.', code: 'invalid_api_key' } }],
    ['OpenAI, deactivated', { error: { message: 'x', code: 'account_deactivated' } }],
    ['Groq', { error: { message: 'Invalid API Key', type: 'invalid_request_error' } }],
    ['Anthropic', { type: 'error', error: { type: 'authentication_error', message: 'invalid x-api-key' } }],
    ['LiteLLM', { error: { message: 'Authentication Error', type: 'token_not_found_in_db', code: '401' } }],
    ['text', { error: 'The API key was revoked' }],
    ['detail', { detail: 'This token has expired.' }],
  ])('is true when the answer says it of the key, whatever the client sent: %s', (_name, value) => {
    expect(judge(value)).toEqual([true, true]);
  });

  it.each<[string, unknown]>([
    ['no JSON', undefined],
    ['an unknown shape', { data: 1 }],
    ['vLLM', { error: 'Unauthorized' }],
    ['OpenRouter', { error: { message: 'User not found.', code: 401 } }],
    ['Hugging Face', { error: 'Invalid username or password.' }],
  ])('is true without an explanation, unless the client named an account: %s', (_name, value) => {
    expect(judge(value)).toEqual([true, false]);
  });

  it.each<[string, unknown]>([
    ['organization', { error: { message: 'x', code: 'mismatched_organization' } }],
    ['organization by text', { error: { message: 'No such organization: org-1.', code: null } }],
    ['project', { error: { message: 'x', code: 'not_authorized_invalid_project' } }],
    ['scope', { error: { message: 'Missing scopes: model.request', code: null } }],
    ['permissions', { detail: 'You have insufficient permissions for this operation.' }],
    ['model', { error: { message: 'key not allowed to access model.', type: 'key_model_access_denied' } }],
    ['credit', { error: { message: 'Buy credit.', type: 'insufficient_quota' } }],
  ])('is false when the request or the account is the cause: %s', (_name, value) => {
    expect(judge(value)).toEqual([false, false]);
  });

  it('is false when the body, which may explain it, did not arrive whole', () => {
    const answer = { kind: 'error', status: 401, headers: {}, isPublic: true, value: undefined } as const;
    const context = { surface: openAiChat, provider: custom, forwardsAccountHeaders: false };
    expect(isKeyRefusal({ ...answer, otherBody: 'an incomplete body' }, context)).toBe(false);
    expect(isKeyRefusal({ ...answer, otherBody: 'no body' }, context)).toBe(true);
  });

  it.each([200, 400, 402, 403, 429, 500])('is false with status %s', (status) => {
    expect(judge({ error: { message: 'x', code: 'invalid_api_key' } }, status)).toEqual([false, false]);
  });
});
