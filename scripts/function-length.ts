import type { Rule } from 'eslint';

const FUNCTIONS = ':function';

/**
 * An ESLint rule: limits the lines of a function's own. The lines of nested functions count for those alone, so that a
 * builder of several short functions stays one function. (`max-lines-per-function` counts nested lines.)
 */
export const functionLength: Rule.RuleModule = {
  meta: {
    type: 'suggestion',
    schema: [{ type: 'object', properties: { max: { type: 'integer' } }, additionalProperties: false }],
    messages: { tooLong: 'This function has {{lines}} lines of its own; at most {{max}} are allowed.' },
  },
  create(context) {
    const { max } = context.options[0] as { max: number };
    /** For each function that is being read: lines of the functions directly inside it. */
    const nestedLines: number[] = [];
    return {
      [FUNCTIONS]() {
        nestedLines.push(0);
      },
      [`${FUNCTIONS}:exit`](node: Rule.Node) {
        if (!node.loc) return;
        const all = node.loc.end.line - node.loc.start.line + 1;
        const lines = all - (nestedLines.pop() ?? 0);
        // A nested function's first line also belongs to the function around it.
        const outer = nestedLines.pop();
        if (outer !== undefined) nestedLines.push(outer + all - 1);
        if (lines > max) context.report({ loc: node.loc, messageId: 'tooLong', data: { lines, max } });
      },
    };
  },
};
