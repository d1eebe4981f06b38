import { PAGE_PATHS } from '../../src/page/page-paths.ts';
import { describe, expect, it } from '@jest/globals';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { readConfig } from '../../src/config/config.ts';
import { createContext } from '../../src/context.ts';

const PROJECT = path.resolve(import.meta.dirname, '..', '..');
const read = (name: string) => readFileSync(path.join(PROJECT, name), 'utf8');
const DOCS = read('docs/api.md');

interface Call {
  method: string;
  /** With `:` instead of the names of parameters. */
  path: string;
}

const withoutNames = (text: string) => text.replace(/\{\w+\}|[:*]\w+/g, ':');

/** All calls in code spans. Paths are below the path in the heading of their section, unless they are complete. */
function listDocumentedCalls(markdown: string): Call[] {
  const calls: Call[] = [];
  let base = '';
  for (const line of markdown.split('\n')) {
    if (line.startsWith('## ')) base = /under `([^`]+)`/.exec(line)?.[1] ?? '';
    for (const [, method = '', target = ''] of line.matchAll(/`(GET|POST|PUT|PATCH|DELETE) (\/[^`\s?]*)/g)) {
      const isComplete = /^\/(api|v1|auth|livez|readyz)\b/.test(target);
      calls.push({
        method,
        path: withoutNames(isComplete ? target : `${base}${target === '/' ? '' : target}`),
      });
    }
  }
  return calls;
}

/** The page and its files are no part of the API. */
const PAGES: string[] = [...PAGE_PATHS, '/assets/:name'];

async function listRoutes(): Promise<Call[]> {
  const settings = {
    DATABASE_URL: 'postgres://127.0.0.1/none',
    KEYCLOAK_URL: 'http://localhost:1',
    ENCRYPTION_KEY: `${Buffer.alloc(32, 1).toString('base64url')}=`,
    SESSION_SECRET: 's'.repeat(43),
    ...Object.fromEntries(
      ['WEB', 'SERVICE', 'VAULT'].map((name) => [`KEYCLOAK_${name}_CLIENT_SECRET`, name.repeat(12)]),
    ),
  };
  const context = createContext(readConfig(settings, () => ''));
  const routes = context.routes
    .filter(({ path: route }) => !PAGES.includes(route))
    .map(({ method, path: route }) => ({ method: method.toUpperCase(), path: withoutNames(route) }));
  await context.close();
  return routes;
}

describe('docs/api.md', () => {
  it('names every route of the API, and no other', async () => {
    const toLines = (calls: readonly Call[]) =>
      [...new Set(calls.map((call) => `${call.method} ${call.path}`))].sort();
    expect(toLines(listDocumentedCalls(DOCS))).toEqual(toLines(await listRoutes()));
  });

  it('names every command and option', () => {
    const section = /## Commands\n\n([\s\S]+)/.exec(DOCS)?.[1] ?? '';
    const words = new Set(
      [...section.matchAll(/`([^`]+)`/g)].flatMap(([, code = '']) => code.split(/[\s[\]<>]+/)),
    );
    const names = [...read('src/cli/main.ts').matchAll(/\.(?:command|\w*[oO]ption)\(\s*'([\w-]+)/g)];
    expect(names.length).toBeGreaterThan(20);
    expect(names.map(([, name = '']) => name).filter((name) => !words.has(name))).toEqual([]);
  });

  it('names log events and their members as the code does', () => {
    const section = /## Log events\n\n(.+)/.exec(DOCS)?.[1] ?? '';
    const events = [...section.matchAll(/`(\w+) \{([^}]+)\}`/g)].map(([, name = '', members = '']) => ({
      name,
      members: members.split(', '),
    }));
    expect(events.length).toBeGreaterThan(10);
    const sources = globSync('src/**/*.ts', { cwd: PROJECT }).map(read);
    for (const { name, members } of events) {
      const emitting = sources.filter((source) => source.includes(`'${name}'`)).join('\n');
      expect([name, members.filter((member) => !new RegExp(`\\b${member}\\b`).test(emitting))]).toEqual([
        name,
        [],
      ]);
    }
  });
});
