import { randomBytes } from 'node:crypto';
import { createArguments } from './arguments.ts';
import { countPromptTokens, countTokens, firstTokens } from './tokens.ts';
import { messageText, type DemoChatRequest, type DemoTool } from './protocol.ts';

interface ToolCall {
  id: string;
  name: string;
  /** JSON text, as in the protocol. */
  arguments: string;
}

export interface DemoChoice {
  /** Null when the choice consists of tool calls. */
  text: string | null;
  toolCalls: readonly ToolCall[];
  finishReason: 'stop' | 'length' | 'tool_calls';
}

interface DemoUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

export interface DemoReply {
  choices: readonly DemoChoice[];
  usage: DemoUsage;
}

/** The model that calls a tool whenever the request has tools. All other model names get text. */
export const TOOL_MODEL = 'demo-tools';
const MAX_QUOTED_LENGTH = 200;

/**
 * Creates the demo's reply. The text always states that it is a demo and contains the last 4 characters of the key,
 * so that users see which key was used.
 */
export function createReply(request: DemoChatRequest, key: string): DemoReply {
  const tools = chooseTools(request);
  const choices = Array.from({ length: request.n ?? 1 }, () =>
    tools.length > 0 ? createToolChoice(tools) : createTextChoice(request, key),
  );
  const prompt = countPromptTokens(request);
  const completion = choices.reduce((sum, choice) => sum + countCompletionTokens(choice), 0);
  return {
    choices,
    usage: { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion },
  };
}

/**
 * Tools to call: the forced tool; all tools that the user's text names; the first tool when a call is required or the
 * model is `demo-tools`. None directly after a tool result, even when a call is required: the demo would call the tool
 * forever, where a model would stop.
 */
function chooseTools(request: DemoChatRequest): DemoTool[] {
  const tools = request.tools ?? [];
  const choice = request.tool_choice ?? 'auto';
  if (choice === 'none' || tools.length === 0 || request.messages.at(-1)?.role === 'tool') return [];
  if (typeof choice === 'object') {
    return tools.filter((tool) => tool.function.name === choice.function.name).slice(0, 1);
  }
  const words = new Set(lastUserText(request).match(/[A-Za-z0-9_-]+/g) ?? []);
  const named = tools.filter((tool) => words.has(tool.function.name));
  if (named.length > 0) return request.parallel_tool_calls === false ? named.slice(0, 1) : named;
  return choice === 'required' || request.model === TOOL_MODEL ? tools.slice(0, 1) : [];
}

function createToolChoice(tools: readonly DemoTool[]): DemoChoice {
  const toolCalls = tools.map((tool) => ({
    id: `call_demo${randomBytes(9).toString('hex')}`,
    name: tool.function.name,
    arguments: JSON.stringify(createArguments(tool.function.parameters ?? {})),
  }));
  return { text: null, toolCalls, finishReason: 'tool_calls' };
}

function createTextChoice(request: DemoChatRequest, key: string): DemoChoice {
  const fullText = replyText(request, key);
  const untilStop = cutAtStop(fullText, request.stop ?? []);
  const limit = request.max_completion_tokens ?? request.max_tokens ?? Infinity;
  const text = firstTokens(untilStop, limit);
  return { text, toolCalls: [], finishReason: text.length < untilStop.length ? 'length' : 'stop' };
}

function replyText(request: DemoChatRequest, key: string): string {
  const opening = `This is a demo: no model was asked, the demo upstream answered. The key used ends in ${key.slice(-4)}.`;
  const last = request.messages.at(-1);
  return last?.role === 'tool'
    ? `${opening} The tool answered: ${shorten(messageText(last))}`
    : `${opening} You wrote: ${shorten(lastUserText(request))}`;
}

function lastUserText(request: DemoChatRequest): string {
  const message = request.messages.findLast((candidate) => candidate.role === 'user');
  return message === undefined ? '' : messageText(message);
}

/** Cuts between code points, so that no surrogate pair is split. */
function shorten(text: string): string {
  const codePoints = Array.from(text);
  return codePoints.length <= MAX_QUOTED_LENGTH
    ? text
    : `${codePoints.slice(0, MAX_QUOTED_LENGTH).join('')}…`;
}

function cutAtStop(text: string, stop: string | readonly string[]): string {
  const stops = (typeof stop === 'string' ? [stop] : stop).filter(Boolean);
  const positions = stops.map((word) => text.indexOf(word)).filter((position) => position >= 0);
  return text.slice(0, Math.min(text.length, ...positions));
}

function countCompletionTokens(choice: DemoChoice): number {
  const calls = choice.toolCalls.map((call) => countTokens(call.name) + countTokens(call.arguments));
  return calls.reduce((sum, tokens) => sum + tokens, countTokens(choice.text ?? ''));
}
