import { PROVIDERS } from '../../src/providers/index.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { OUTCOMES, readRecordings, type Recording } from './recordings.ts';

type Row = readonly string[];

/** One row per provider: address, protocols, key format, test and billing. */
export function providersTable(): Row[] {
  return [
    ['provider', 'address', 'protocols', 'key', 'test', 'billed'],
    ...PROVIDERS.map((provider) => [
      `\`${provider.id}\` (${provider.name})`,
      provider.baseUrl === null ? describeAddress(provider) : `\`${provider.baseUrl}\``,
      Object.keys(provider.surfaces).join(', '),
      describeKey(provider),
      `\`${provider.keyTest.method} ${provider.keyTest.path}\``,
      provider.keyTest.billed ? 'yes' : 'no',
    ]),
  ];
}

/** One row per provider: the recorded responses of each outcome. */
export function outcomesTable(): Row[] {
  return [
    ['provider', ...OUTCOMES.map((outcome) => `\`${outcome}\``)],
    ...PROVIDERS.map(({ id }) => {
      const { answers } = readRecordings(id);
      return [
        `\`${id}\``,
        ...OUTCOMES.map((outcome) => toCell(answers.filter((one) => one.outcome === outcome))),
      ];
    }),
  ];
}

function describeAddress(provider: Provider): string {
  return provider.isLocalOnly ? 'started with the quick start' : "the key's own endpoint, or the operator's";
}

function describeKey({ key, requiresKey }: Provider): string {
  if (key.hint !== null) return `\`${key.hint}\``;
  return requiresKey ? 'no common prefix' : 'any, or none';
}

function toCell(answers: readonly Recording[]): string {
  const cells = answers.map((one) => `${one.status} ${one.mark ?? toMark(one.body)}`.trim());
  return [...new Set(cells)].join('; ');
}

/** The error code or type in the body. */
function toMark(body: unknown): string {
  if (typeof body === 'string') return 'HTML';
  const error = readMember(body, 'error');
  const marks = [
    readMember(readMember(error, 'details'), 'error_code'),
    readMember(error, 'code'),
    readMember(error, 'type'),
  ];
  const mark = marks.find((one) => typeof one === 'string');
  return mark === undefined ? '' : `\`${mark}\``;
}

function readMember(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

/** Writes the rows as a Markdown table without column padding. */
export function toMarkdown(rows: readonly Row[]): string {
  const [head = [], ...rest] = rows;
  return [head, head.map(() => '---'), ...rest].map((row) => `| ${row.join(' | ')} |`).join('\n');
}
