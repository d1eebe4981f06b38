import { messageText, type DemoChatRequest } from './protocol.ts';

/**
 * One token of the demo: up to four letters or digits, or one other character, with preceding white space.
 * Close to real tokenizers for English, without a vocabulary.
 */
const TOKEN = /\s*(?:[\p{L}\p{M}\p{N}_]{1,4}|[^\s\p{L}\p{M}\p{N}_])/gu;
/** Tokens that OpenAI's chat format adds for each message and once for the response. */
const TOKENS_PER_MESSAGE = 4;
const TOKENS_PER_RESPONSE = 3;

export function countTokens(text: string): number {
  return text.match(TOKEN)?.length ?? 0;
}

/** The longest prefix of `text` with at most `limit` tokens. */
export function firstTokens(text: string, limit: number): string {
  const tokens = text.match(TOKEN) ?? [];
  return tokens.length <= limit ? text : tokens.slice(0, limit).join('');
}

export function countPromptTokens(request: DemoChatRequest): number {
  const messages = request.messages.map((message) => countTokens(messageText(message)) + TOKENS_PER_MESSAGE);
  const tools = request.tools?.length ? countTokens(JSON.stringify(request.tools)) : 0;
  return messages.reduce((sum, tokens) => sum + tokens, tools + TOKENS_PER_RESPONSE);
}
