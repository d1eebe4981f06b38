import { PROVIDERS } from '../../src/providers/index.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { OUTCOMES, readRecordings, type Recording } from './recordings.ts';

type Row = readonly string[];

/** What each provider is and how its keys are tested. */
export function providersTable(): Row[] {
  return [
    ['provider', 'address', 'key', 'test', 'billed'],
    ...PROVIDERS.map((provider) => [
      `\`${provider.id}\` (${provider.name})`,
      provider.baseUrl === null ? addressOf(provider) : `\`${provider.baseUrl}\``,
      keyOf(provider),
      `\`${provider.keyTest.method} ${provider.keyTest.path}\``,
      provider.keyTest.billed ? 'yes' : 'no',
    ]),
  ];
}

/** Which answers of each provider lead to which outcome, by the recorded ones. */
export function outcomesTable(): Row[] {
  return [
    ['provider', ...OUTCOMES.map((outcome) => `\`${outcome}\``)],
    ...PROVIDERS.map(({ id }) => {
      const { answers } = readRecordings(id);
      return [
        `\`${id}\``,
        ...OUTCOMES.map((outcome) => cellOf(answers.filter((one) => one.outcome === outcome))),
      ];
    }),
  ];
}

function addressOf(provider: Provider): string {
  return provider.localOnly ? 'started with the quick start' : "the key's own endpoint, or the operator's";
}

function keyOf({ key, requiresKey }: Provider): string {
  if (key.hint !== null) return `\`${key.hint}\``;
  return requiresKey ? 'no common prefix' : 'any, or none';
}

function cellOf(answers: readonly Recording[]): string {
  const cells = answers.map((one) => `${one.status} ${one.mark ?? markOf(one.body)}`.trim());
  return [...new Set(cells)].join('; ');
}

/** The code or type by which the body tells itself apart. */
function markOf(body: unknown): string {
  if (typeof body === 'string') return 'HTML';
  const error = memberOf(body, 'error');
  const marks = [
    memberOf(memberOf(error, 'details'), 'error_code'),
    memberOf(error, 'code'),
    memberOf(error, 'type'),
  ];
  const mark = marks.find((one) => typeof one === 'string');
  return mark === undefined ? '' : `\`${mark}\``;
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

/** As Markdown, not yet in columns. */
export function toMarkdown(rows: readonly Row[]): string {
  const [head = [], ...rest] = rows;
  return [head, head.map(() => '---'), ...rest].map((row) => `| ${row.join(' | ')} |`).join('\n');
}
