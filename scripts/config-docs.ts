import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { SETTINGS } from '../src/config/settings.ts';

const ROOT = path.join(import.meta.dirname, '..');
const BEGIN = '<!-- configuration: made by `npm run docs` -->';
const END = '<!-- end of configuration -->';

interface SettingInfo {
  description: string;
  fallback?: string;
  secret?: true;
  required?: true;
  quickStart?: string;
}

const settings = Object.entries<SettingInfo>(SETTINGS);

/** Text of `.env.example`: every setting with its description, commented out with its default. */
export function envExample(): string {
  const head =
    '# Every setting of Ops Center. Made from src/config/settings.ts by `npm run docs`.\n# A secret can also come as the path of a file in NAME_FILE.\n';
  const entries = settings.map(
    ([name, setting]) => `\n# ${setting.description}${note(setting)}\n# ${name}=${setting.fallback ?? ''}\n`,
  );
  return `${head}${entries.join('')}\n# Base URL of a provider, without /chat/completions, instead of the provider's default.\n# UPSTREAM_OPENAI_URL=\n`;
}

/** Table of all settings. */
export function configTable(): string {
  const rows = settings.map(
    ([name, setting]) =>
      `| \`${name}\`${setting.secret ? ' *' : ''} | ${shownDefault(setting)} | ${setting.description.replaceAll('|', '\\|')} |`,
  );
  rows.push(
    "| `UPSTREAM_<PROVIDER>_URL` | the provider's own | Base URL, without `/chat/completions`, e.g. `UPSTREAM_OPENAI_URL`. |",
  );
  return ['| name | default | meaning |', '|---|---|---|', ...rows].join('\n');
}

/** Replaces the table in the text of docs/configuration.md. */
export function withConfigTable(page: string): string {
  const [before, rest] = page.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined)
    throw new Error(`docs/configuration.md lacks ${BEGIN} or ${END}`);
  return `${before}${BEGIN}\n\n${configTable()}\n\n${END}${after}`;
}

function shownDefault(setting: SettingInfo): string {
  if (setting.quickStart !== undefined)
    return setting.required
      ? `quick start: ${setting.quickStart}`
      : `${setting.fallback ? `\`${setting.fallback}\`; ` : ''}quick start: ${setting.quickStart}`;
  if (setting.fallback === undefined) return '';
  return setting.fallback === '' ? 'empty' : `\`${setting.fallback}\``;
}

function note(setting: SettingInfo): string {
  if (setting.quickStart !== undefined) return ` Quick start: ${setting.quickStart}.`;
  return setting.required ? ' Required.' : '';
}

if (import.meta.main) {
  const page = path.join(ROOT, 'docs/configuration.md');
  writeFileSync(page, withConfigTable(readFileSync(page, 'utf8')));
  writeFileSync(path.join(ROOT, '.env.example'), envExample());
}
