/**
 * A program that sends the same request on several connections for some time, each after the response to the one before:
 * `node client.ts <settings as JSON>`. It writes its result as JSON.
 */
import { Agent, request } from 'undici';

export interface ClientSettings {
  url: string;
  headers: Record<string, string>;
  body: string;
  connections: number;
  durationMs: number;
}

export interface ClientResult {
  requests: number;
  /** Times of 1 of 10 requests, in ms. */
  times: number[];
}

const SAMPLED = 10;

const { url, headers, body, connections, durationMs } = JSON.parse(process.argv[2] ?? '') as ClientSettings;
const dispatcher = new Agent({ connections });
const result: ClientResult = { requests: 0, times: [] };
const endMs = performance.now() + durationMs;

async function repeat(): Promise<void> {
  for (let startedAtMs = performance.now(); startedAtMs < endMs; startedAtMs = performance.now()) {
    const response = await request(url, { method: 'POST', headers, body, dispatcher });
    const text = await response.body.text();
    if (response.statusCode !== 200) throw new Error(`${response.statusCode} ${text}`);
    result.requests += 1;
    if (result.requests % SAMPLED === 0) result.times.push(performance.now() - startedAtMs);
  }
}

await Promise.all(Array.from({ length: connections }, repeat));
await dispatcher.close();
process.stdout.write(JSON.stringify(result));
