/** What users paste to point a program at this installation. */
export interface Snippet {
  id: string;
  name: string;
  /** Where the text belongs: a shell, or the file that it names. */
  target: string;
  text: string;
}

export interface SnippetValues {
  /** Of this installation, e.g. `https://ops.example.com`. */
  origin: string;
  /** Or a placeholder for it. */
  token: string;
  /** Model names that the user's keys or the system serve, for clients of OpenAI's and of Anthropic's protocol. */
  models: { openai: string; anthropic: string };
}

export function createSnippets(values: SnippetValues): readonly Snippet[] {
  return [
    ...openAiSnippets(values),
    ...anthropicSnippets(values),
    ...agentSnippets(values),
    ...editorSnippets(values),
  ];
}

function openAiSnippets({ origin, token, models: { openai: model } }: SnippetValues): Snippet[] {
  const baseUrl = `${origin}/v1`;
  return [
    {
      id: 'curl',
      name: 'curl',
      target: 'In a shell',
      text: `curl ${baseUrl}/chat/completions \\
  -H "Authorization: Bearer ${token}" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "${model}", "messages": [{"role": "user", "content": "Hello"}]}'`,
    },
    {
      id: 'openai-python',
      name: 'OpenAI, Python',
      target: 'pip install openai',
      text: `from openai import OpenAI

client = OpenAI(base_url="${baseUrl}", api_key="${token}")
answer = client.chat.completions.create(
    model="${model}", messages=[{"role": "user", "content": "Hello"}]
)
print(answer.choices[0].message.content)`,
    },
    {
      id: 'openai-node',
      name: 'OpenAI, Node',
      target: 'npm install openai',
      text: `import OpenAI from 'openai';

const client = new OpenAI({ baseURL: '${baseUrl}', apiKey: '${token}' });
const answer = await client.chat.completions.create({
  model: '${model}',
  messages: [{ role: 'user', content: 'Hello' }],
});
console.log(answer.choices[0].message.content);`,
    },
  ];
}

function anthropicSnippets({ origin, token, models: { anthropic: model } }: SnippetValues): Snippet[] {
  return [
    {
      id: 'anthropic-python',
      name: 'Anthropic, Python',
      target: 'pip install anthropic',
      text: `from anthropic import Anthropic

client = Anthropic(base_url="${origin}", auth_token="${token}")
answer = client.messages.create(
    model="${model}", max_tokens=1024, messages=[{"role": "user", "content": "Hello"}]
)
print(answer.content[0].text)`,
    },
    {
      id: 'anthropic-node',
      name: 'Anthropic, Node',
      target: 'npm install @anthropic-ai/sdk',
      text: `import Anthropic from '@anthropic-ai/sdk';

const client = new Anthropic({ baseURL: '${origin}', authToken: '${token}' });
const answer = await client.messages.create({
  model: '${model}',
  max_tokens: 1024,
  messages: [{ role: 'user', content: 'Hello' }],
});
console.log(answer.content[0].text);`,
    },
  ];
}

function agentSnippets({ origin, token, models: { openai, anthropic } }: SnippetValues): Snippet[] {
  const baseUrl = `${origin}/v1`;
  return [
    {
      id: 'claude-code',
      name: 'Claude Code',
      target: 'In a shell',
      text: `export ANTHROPIC_BASE_URL=${origin}
export ANTHROPIC_AUTH_TOKEN=${token}
claude --model ${anthropic}`,
    },
    {
      id: 'codex',
      name: 'Codex',
      target: 'In ~/.codex/config.toml; then in a shell: export OPS_CENTER_TOKEN=' + token,
      text: `model = "${openai}"
model_provider = "ops-center"

[model_providers.ops-center]
name = "Ops Center"
base_url = "${baseUrl}"
env_key = "OPS_CENTER_TOKEN"
wire_api = "responses"`,
    },
    {
      id: 'opencode',
      name: 'opencode',
      target: 'In opencode.json',
      text: JSON.stringify(
        {
          provider: {
            'ops-center': {
              npm: '@ai-sdk/openai-compatible',
              name: 'Ops Center',
              options: { baseURL: baseUrl, apiKey: token },
              models: { [openai]: {} },
            },
          },
        },
        undefined,
        2,
      ),
    },
  ];
}

function editorSnippets({ origin, token, models: { openai: model } }: SnippetValues): Snippet[] {
  const baseUrl = `${origin}/v1`;
  return [
    {
      id: 'cursor',
      name: 'Cursor',
      target: 'In Settings, Models, API keys: switch on “Override OpenAI Base URL”',
      text: `OpenAI API Key:          ${token}
Override OpenAI Base URL: ${baseUrl}`,
    },
    {
      id: 'continue',
      name: 'Continue',
      target: 'In ~/.continue/config.yaml',
      text: `models:
  - name: Ops Center
    provider: openai
    model: ${model}
    apiBase: ${baseUrl}
    apiKey: ${token}`,
    },
  ];
}
