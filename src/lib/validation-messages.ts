import type { z } from 'zod';

type Issue = Parameters<z.core.$ZodErrorMap>[0];
type IssueOf<Code extends Issue['code']> = Extract<Issue, { code: Code }>;

/** Zod's names of types, as users know them. */
const TYPE_NAMES: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
};
/** What is counted, by the type of the value. */
const UNITS: Readonly<Record<string, string>> = {
  string: ' characters',
  array: ' entries',
  record: ' members',
};
const MAX_SHOWN_NAMES = 5;
/** Other names are not repeated, because they come from the request. */
const SHOWN_NAME = /^[\w.-]{1,64}$/;

/**
 * Messages for users of the issues that Zod finds by itself. Pass it as `error` of a parse; messages of the schema take
 * precedence. They continue the path of the member, and contain no value.
 */
export const describeIssue: z.core.$ZodErrorMap = (issue) => {
  switch (issue.code) {
    case 'invalid_type':
      return issue.input === undefined
        ? 'is required'
        : `must be ${TYPE_NAMES[issue.expected] ?? 'of another type'}`;
    case 'too_small':
      return describeTooSmall(issue);
    case 'too_big':
      return describeTooBig(issue);
    case 'invalid_value':
      return describeChoice(issue);
    case 'unrecognized_keys':
      return describeUnknownMembers(issue.keys, listMembers(issue.inst));
    case 'invalid_key':
      return issue.issues[0]?.message ?? 'has a name that is not valid';
    case 'invalid_format':
    case 'not_multiple_of':
    case 'invalid_union':
    case 'invalid_element':
    case 'custom':
      return 'is not valid';
  }
};

function describeTooSmall({ origin, minimum, inclusive }: IssueOf<'too_small'>): string {
  const unit = UNITS[origin];
  if (unit === undefined)
    return inclusive === false ? `must be more than ${minimum}` : `must be ${minimum} or more`;
  return minimum === 1 ? 'must not be empty' : `must have ${minimum}${unit} or more`;
}

function describeTooBig({ origin, maximum, inclusive }: IssueOf<'too_big'>): string {
  const unit = UNITS[origin];
  if (unit === undefined)
    return inclusive === false ? `must be less than ${maximum}` : `must be ${maximum} or less`;
  return `must have ${maximum}${unit} or fewer`;
}

function describeChoice({ values, input }: IssueOf<'invalid_value'>): string {
  if (input === undefined) return 'is required';
  const [first, ...others] = values.map(String);
  return others.length === 0 ? `must be ${first}` : `must be one of ${[first, ...others].join(', ')}`;
}

/** The members of an object schema. */
function listMembers(schema: unknown): readonly string[] {
  const { shape } = (schema as { shape?: object } | undefined) ?? {};
  return Object.keys(shape ?? {});
}

/** Repeats a name, with the member whose name begins in the same way: `timeout (timeout_ms?)`, `timeoutMs (timeout_ms?)`. */
function describeUnknownMember(name: string, members: readonly string[]): string {
  const normalize = (text: string) => text.toLowerCase().replaceAll(/[^a-z\d]/g, '');
  const given = normalize(name);
  const similar = members.find((member) => {
    const known = normalize(member);
    return given !== '' && (known.startsWith(given) || given.startsWith(known));
  });
  return similar === undefined ? name : `${name} (${similar}?)`;
}

function describeUnknownMembers(names: readonly string[], members: readonly string[]): string {
  const shown = names
    .filter((name) => SHOWN_NAME.test(name))
    .slice(0, MAX_SHOWN_NAMES)
    .map((name) => describeUnknownMember(name, members));
  if (shown.length === 0) return 'has a member that is not known';
  const others = names.length - shown.length;
  return `has members that are not known: ${shown.join(', ')}${others > 0 ? ` and ${others} more` : ''}`;
}
