import { expect } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { evidence } from './evidence.ts';
import { openAiKey } from './key.ts';

/** A protocol in which clients call the gateway, with what a test needs to call it and to read its answers. */
export interface SurfaceCase {
  name: string;
  path: string;
  provider: string;
  createKey(): string;
  request: Readonly<Record<string, unknown>>;
  /** The last event of a whole stream. */
  end: string;
  /** What a body, or the data of an error event, of this error of ours has. */
  toError(code: StreamErrorCode): object;
  /** Members of a successful response and of an event of one that contain a text. */
  toSuccess(text: string): Readonly<Record<string, unknown>>;
  /** An error of a provider, as a body and as an event. */
  toProviderError(message: string): object;
}

/** Codes of errors of ours that end a stream, or take its place. */
export type StreamErrorCode =
  'upstream_unreachable' | 'upstream_timeout' | 'upstream_malformed' | 'upstream_incomplete';

/** Anthropic's errors have no code. */
const MESSAGES: Readonly<Record<StreamErrorCode, RegExp>> = {
  upstream_unreachable: /\bbroke\b/,
  upstream_timeout: /\btook too long\b/,
  upstream_malformed: /size limit|JSON|status 30|compressed/,
  upstream_incomplete: /^The provider ended the stream before the answer was complete\./,
};

/** A random key in Anthropic's format. */
export function anthropicKey(): string {
  const key = `sk-ant-api03-${randomBytes(24).toString('hex')}`;
  evidence.registerSecret('provider key', key);
  return key;
}

/** All protocols with streams. */
export const SURFACES: readonly SurfaceCase[] = [
  {
    name: 'chat completions',
    path: '/v1/chat/completions',
    provider: 'openai',
    createKey: openAiKey,
    request: { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] },
    end: 'data: [DONE]\n\n',
    toError: (code) => ({ error: { code, type: 'server_error' } }),
    toSuccess: (text) => ({
      choices: [{ index: 0, delta: { content: text }, message: { content: text } }],
      error: null,
    }),
    toProviderError: (message) => ({ error: { message, type: 'x' } }),
  },
  {
    name: 'Messages',
    path: '/v1/messages',
    provider: 'anthropic',
    createKey: anthropicKey,
    request: { model: 'claude-sonnet-5-5', max_tokens: 100, messages: [{ role: 'user', content: 'Hello' }] },
    end: 'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    toError: (code) => ({
      type: 'error',
      error: {
        type: code === 'upstream_timeout' ? 'timeout_error' : 'api_error',
        message: expect.stringMatching(MESSAGES[code]),
      },
    }),
    toSuccess: (text) => ({ type: 'message', content: [{ type: 'text', text }], error: null }),
    toProviderError: (message) => ({ type: 'error', error: { type: 'x', message } }),
  },
];
