import { describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { describeIssue } from '../../src/lib/validation-messages.ts';

const listMessages = (schema: z.ZodType, value: unknown) =>
  (schema.safeParse(value, { error: describeIssue }).error?.issues ?? []).map(({ message }) => message);

describe('the message of an invalid value', () => {
  const name = z.string().regex(/^[a-z]+$/, 'must be letters');
  const cases: [schema: z.ZodType, value: unknown, message: string][] = [
    [z.object({ a: z.string() }), {}, 'is required'],
    [z.object({ a: z.enum(['x', 'y']) }), {}, 'is required'],
    [z.string(), 5, 'must be text'],
    [z.string(), null, 'must be text'],
    [z.number(), 'x', 'must be a number'],
    [z.int(), 1.5, 'must be a whole number'],
    [z.boolean(), 'x', 'must be true or false'],
    [z.array(z.string()), 'x', 'must be a list'],
    [z.object({}), [], 'must be an object'],
    [z.record(z.string(), z.string()), 'x', 'must be an object'],
    [z.string().min(1), '', 'must not be empty'],
    [z.string().min(8), 'x', 'must have 8 characters or more'],
    [z.string().max(3), 'secret', 'must have 3 characters or fewer'],
    [z.array(z.string()).min(1), [], 'must not be empty'],
    [z.array(z.string()).max(1), ['a', 'b'], 'must have 1 entries or fewer'],
    [z.number().min(2), 1, 'must be 2 or more'],
    [z.number().gt(2), 2, 'must be more than 2'],
    [z.number().max(2), 3, 'must be 2 or less'],
    [z.number().lt(2), 2, 'must be less than 2'],
    [z.enum(['x', 'y']), 'secret', 'must be one of x, y'],
    [z.literal('x'), 'secret', 'must be x'],
    [z.strictObject({}), { a: 1, b: 2 }, 'has members that are not known: a, b'],
    [
      z.strictObject({}),
      { a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7 },
      'has members that are not known: a, b, c, d, e and 2 more',
    ],
    [
      z.strictObject({ timeout_ms: z.number().optional(), host: z.string().optional() }),
      { timeout: 1, timeoutMs: 1, hostname: 'h', tim: 1, other: 1 },
      'has members that are not known: timeout (timeout_ms?), timeoutMs (timeout_ms?), hostname (host?), tim (timeout_ms?), other',
    ],
    [z.strictObject({}), { '\u202esecret value': 1 }, 'has a member that is not known'],
    [z.record(name, z.string()), { SECRET: 'x' }, 'must be letters'],
    [z.union([z.string(), z.number()]), true, 'is not valid'],
    [z.iso.datetime(), 'secret', 'is not valid'],
    [z.string().refine(() => false), 'secret', 'is not valid'],
    [z.string().refine(() => false, 'must be a word'), 'secret', 'must be a word'],
    [name, 'SECRET', 'must be letters'],
  ];
  it.each(cases)('says the rule and not the value (%#)', (schema, value, message) => {
    expect(listMessages(schema, value)).toEqual([message]);
  });
});
