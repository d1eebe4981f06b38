import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { TestApp } from '../../test/support/app.ts';
import { addKey } from '../../test/support/key.ts';
import type { ServerClient } from '../../test/support/servers.ts';
import type { LoadProbe } from './attack.ts';

export interface UpstreamProcess {
  url: string;
  stop(): Promise<void>;
}

/** An upstream in a process of its own, so that its work and its memory are not measured. */
export async function startUpstreamProcess(): Promise<UpstreamProcess> {
  const script = fileURLToPath(new URL('../large-answers-upstream.ts', import.meta.url));
  const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const [url] = (await once(child.stdout.setEncoding('utf8'), 'data')) as [string];
  return {
    url: url.trim(),
    async stop() {
      child.kill();
      await exited;
    },
  };
}

/** A chat of another user with a key of their own. @param bodyBytes size of the request. */
export async function createChatProbe(
  app: TestApp,
  { session }: ServerClient,
  upstream: UpstreamProcess,
  bodyBytes: number,
): Promise<LoadProbe> {
  await addKey(app, session, { provider: 'custom', key: 'a-key-of-the-other', endpoint: upstream.url });
  const json = { model: 'custom/short', messages: [{ role: 'user', content: 'x'.repeat(bodyBytes) }] };
  return {
    name: `chat of ${Math.round(bodyBytes / 1024)} KB`,
    async call() {
      const response = await app.call('/v1/chat/completions', { method: 'POST', session, json });
      const text = await response.text();
      if (response.status !== 200) throw new Error(`the other user's chat: ${response.status} ${text}`);
    },
  };
}
