import { fieldNotAllowed, foldName, wrongFieldType } from '../../admission/request-body.ts';
import { toArray } from '../../admission/shared-payer-values.ts';
import { checkSchema, hasExtendedCache, listObjectMembers } from './shared-payer-values.ts';

/**
 * Tools that the client runs: its own, and those whose schema Anthropic defines. The others run at the provider and are
 * billed to its account, or reach addresses from there: `web_search_*`, `web_fetch_*`, `code_execution_*`,
 * `tool_search_tool_*`, `mcp_toolset`, `advisor_*`.
 */
const CLIENT_SIDE_TOOL = /^(custom|(bash|computer|memory|text_editor)_[0-9]{8})$/;
const CHOICES: ReadonlySet<unknown> = new Set(['auto', 'any', 'none', 'tool']);
const CHOICE_MEMBERS: ReadonlySet<string> = new Set(['type', 'name', 'disable_parallel_tool_use']);

/**
 * Checks `tools` and `tool_choice`.
 * @throws AppError `field_not_allowed`, `validation_failed` for a tool that the provider runs.
 */
export function checkTools(tools: unknown, choice: unknown): void {
  for (const tool of toArray(tools, 'tools')) {
    const members = listObjectMembers(tool, 'tools');
    // The member must be spelled exactly `type`: lax parsers accept `Type` as well. A tool without one is the client's.
    const types = members.filter(([name]) => foldName(name) === 'type');
    const isClientSide = types.every(
      ([name, type]) => name === 'type' && (type === null || CLIENT_SIDE_TOOL.test(toText(type))),
    );
    if (!isClientSide) throw fieldNotAllowed('tools');
    if (hasExtendedCache(Object.fromEntries(members))) throw fieldNotAllowed('tools.cache_control.ttl');
    for (const [name, value] of members) checkSchema(value, `tools.${name}`);
  }
  if (choice === undefined || choice === null) return;
  if (typeof choice !== 'object' || Array.isArray(choice)) throw wrongFieldType('tool_choice', 'an object');
  const isAllowed = Object.keys(choice).every((name) => CHOICE_MEMBERS.has(name));
  if (!isAllowed || !CHOICES.has((choice as Record<string, unknown>)['type']))
    throw fieldNotAllowed('tool_choice');
}

function toText(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
