import { z } from 'zod';

/**
 * The part of OpenAI's chat completions protocol that the demo implements. Objects are loose: unknown fields are
 * accepted and ignored, so that newer fields of OpenAI do not fail.
 */
const TextPart = z.looseObject({ type: z.string(), text: z.string().optional() });

const DemoMessage = z.looseObject({
  role: z.enum(['system', 'developer', 'user', 'assistant', 'tool', 'function']),
  content: z.union([z.string(), z.array(TextPart)]).nullish(),
});
export type DemoMessage = z.output<typeof DemoMessage>;

export const DemoTool = z.looseObject({
  type: z.literal('function'),
  function: z.looseObject({
    name: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
    parameters: z.record(z.string(), z.unknown()).nullish(),
  }),
});
export type DemoTool = z.output<typeof DemoTool>;

const ToolChoice = z.union([
  z.enum(['none', 'auto', 'required']),
  z.looseObject({ type: z.literal('function'), function: z.looseObject({ name: z.string() }) }),
]);

/** Far below OpenAI's limit of 128, since the demo sends word by word. */
const MAX_CHOICES = 8;
const tokenLimit = z.int().min(1).nullish();

export const DemoChatRequest = z.looseObject({
  model: z.string().min(1),
  messages: z.array(DemoMessage).min(1),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: tokenLimit,
  max_completion_tokens: tokenLimit,
  n: z.int().min(1).max(MAX_CHOICES).nullish(),
  stop: z.union([z.string(), z.array(z.string()).max(4)]).nullish(),
  tools: z.array(DemoTool).max(128).nullish(),
  tool_choice: ToolChoice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
});
export type DemoChatRequest = z.output<typeof DemoChatRequest>;

/** An error response in OpenAI's shape. */
export class DemoError extends Error {
  override readonly name = 'DemoError';
  readonly status: number;
  readonly body: {
    error: { message: string; type: string; param: string | null; code: string | null };
  };
  readonly headers: Record<string, string>;

  constructor(
    status: number,
    message: string,
    options: { param?: string; code?: string; headers?: Record<string, string> } = {},
  ) {
    super(message);
    this.status = status;
    this.body = {
      error: {
        message,
        type: status >= 500 ? 'server_error' : 'invalid_request_error',
        param: options.param ?? null,
        code: options.code ?? null,
      },
    };
    this.headers = options.headers ?? {};
  }
}

/**
 * Parses a chat completion request.
 * @throws DemoError 400 that names the first invalid field, with OpenAI's message where it has one.
 */
export function readDemoChatRequest(body: Buffer): DemoChatRequest {
  const request = readDemoRequest(DemoChatRequest, body);
  checkToolChoice(request);
  return request;
}

/**
 * Parses a request.
 * @throws DemoError 400 that names the first invalid field, with OpenAI's message where it has one.
 */
export function readDemoRequest<Output>(schema: z.ZodType<Output>, body: Buffer): Output {
  const result = schema.safeParse(parseDemoBody(body));
  if (!result.success) throw toFieldError(result.error);
  return result.data;
}

/** @throws DemoError 400 for a body that is not JSON in UTF-8. */
export function parseDemoBody(body: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw new DemoError(
      400,
      'We could not parse the JSON body of your request. The demo expects a JSON payload in UTF-8.',
    );
  }
}

function toFieldError(error: z.ZodError): DemoError {
  const [issue] = error.issues;
  const param = issue?.path.join('.') ?? '';
  if (issue === undefined || param === '') return new DemoError(400, 'The body is not a JSON object.');
  // Only Zod's message distinguishes a missing field from an invalid one.
  if (issue.code === 'invalid_type' && issue.message.endsWith('received undefined')) {
    return new DemoError(400, `Missing required parameter: '${param}'.`, {
      param,
      code: 'missing_required_parameter',
    });
  }
  const code = issue.code === 'invalid_type' ? 'invalid_type' : 'invalid_value';
  return new DemoError(400, `Invalid '${param}': ${issue.message}.`, { param, code });
}

function checkToolChoice(request: DemoChatRequest): void {
  const choice = request.tool_choice;
  if (choice === null || choice === undefined || choice === 'none') return;
  const tools = request.tools ?? [];
  if (tools.length === 0) {
    throw new DemoError(400, "Invalid value for 'tool_choice': 'tool_choice' needs 'tools'.", {
      param: 'tool_choice',
    });
  }
  if (typeof choice === 'object' && !tools.some((tool) => tool.function.name === choice.function.name)) {
    throw new DemoError(400, `Tool choice '${choice.function.name}' not found in 'tools' parameter.`, {
      param: 'tool_choice',
    });
  }
}

/** The text of a message: the string or the joined text parts. */
export function messageText(message: DemoMessage): string {
  if (typeof message.content === 'string') return message.content;
  return (message.content ?? []).map((part) => part.text ?? '').join('');
}
