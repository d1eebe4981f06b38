import { messageText, type DemoChatRequest } from './protocol.ts';

/**
 * One token of the demo: up to four letters or digits, or one other sign, with the white space before it.
 * Near what real tokenizers make of English, and it needs no vocabulary.
 */
const TOKEN = /\s*(?:[\p{L}\p{M}\p{N}_]{1,4}|[^\s\p{L}\p{M}\p{N}_])/gu;
/** What OpenAI's chat format adds around each message, and once for the answer. */
const TOKENS_PER_MESSAGE = 4;
const TOKENS_PER_RESPONSE = 3;

export function countTokens(text: string): number {
  return text.match(TOKEN)?.length ?? 0;
}

/** The longest start of `text` that has at most `limit` tokens. */
export function firstTokens(text: string, limit: number): string {
  const tokens = text.match(TOKEN) ?? [];
  return tokens.length <= limit ? text : tokens.slice(0, limit).join('');
}

export function countPromptTokens(request: DemoChatRequest): number {
  const messages = request.messages.map((message) => countTokens(messageText(message)) + TOKENS_PER_MESSAGE);
  const tools = request.tools?.length ? countTokens(JSON.stringify(request.tools)) : 0;
  return messages.reduce((sum, tokens) => sum + tokens, tools + TOKENS_PER_RESPONSE);
}
