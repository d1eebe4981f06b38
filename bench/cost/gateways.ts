import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort } from '../../test/support/free-port.ts';
import { until } from '../../test/support/until.ts';
import { startProgram } from './program.ts';

/** Where the requests of one row of the table go. */
export interface Gateway {
  name: string;
  /** The address of a chat. */
  url: string;
  headers: Record<string, string>;
  /** The process whose time is measured, with its children. */
  pid: number;
  stop(): Promise<void>;
}

const UPSTREAM_KEY = { authorization: 'Bearer sk-direct' };

function hasProgram(name: string): boolean {
  try {
    execFileSync('which', [name], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

async function untilListening(url: string): Promise<void> {
  const isListening = () => fetch(url).then(Boolean, () => false);
  await until(isListening, Boolean, 30_000);
}

/** As a plain proxy with one worker. @returns why it is left out. */
export async function startNginx(upstreamUrl: string): Promise<Gateway | string> {
  if (!hasProgram('nginx')) return 'nginx is not installed';
  const port = await freePort();
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-nginx-'));
  const file = path.join(folder, 'nginx.conf');
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error.log;
     events {}
     http {
       access_log ${folder}/access.log; client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
       fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
       upstream chat { server ${new URL(upstreamUrl).host}; keepalive 32; }
       server {
         listen 127.0.0.1:${port}; keepalive_requests 1000000;
         location / { proxy_pass http://chat; proxy_http_version 1.1; proxy_set_header Connection ""; }
       }
     }`,
  );
  const program = startProgram('nginx', ['-p', folder, '-c', file]);
  const url = `http://127.0.0.1:${port}/v1/chat/completions`;
  await untilListening(url);
  return {
    ...{ name: 'nginx', url, headers: UPSTREAM_KEY, pid: program.pid },
    async stop() {
      await program.stop();
      rmSync(folder, { recursive: true });
    },
  };
}

/** `PORTKEY_SERVER` names `build/start-server.js` of the package `@portkey-ai/gateway`. @returns why it is left out. */
export async function startPortkey(upstreamUrl: string): Promise<Gateway | string> {
  const server = process.env['PORTKEY_SERVER'] ?? 'node_modules/@portkey-ai/gateway/build/start-server.js';
  if (!existsSync(server)) return 'PORTKEY_SERVER names no file';
  const port = await freePort();
  const program = startProgram(process.execPath, [server, `--port=${port}`, '--headless']);
  await untilListening(`http://127.0.0.1:${port}/`);
  return {
    name: "Portkey's gateway",
    url: `http://127.0.0.1:${port}/v1/chat/completions`,
    headers: {
      ...UPSTREAM_KEY,
      'x-portkey-provider': 'openai',
      'x-portkey-custom-host': `${upstreamUrl}/v1`,
    },
    ...program,
  };
}
