import path from 'node:path';
import type { AST, Rule } from 'eslint';

/**
 * Words that describe processes as persons or stand for several things. "Language" in CONTRIBUTING.md says what to
 * write instead.
 */
const REFUSED_WORDS = [
  'nobody',
  'somebody',
  'anybody',
  'everybody',
  'whoever',
  'whosever',
  'whosoever',
  'anew',
  'afresh',
  'aloud',
  'told',
  'hears',
  'heard',
  'news',
  'wish(es)?',
  'elsewhere',
  'lives',
  'strangers?',
  'leftovers?',
  'sign of life',
  'to be had',
  'made known',
  'set aside',
  'passed over',
  'lets go',
  'let go of',
  'at work',
  '(is|are) no more',
  'no matter',
  'for the sake of',
];

/** Texts in which a refused word is a name of the field. */
const EXEMPT_TEXTS = [/\bthe (Unix )?(account|user|group) nobody\b/gi];

const PATTERN = new RegExp(`\\b(${REFUSED_WORDS.join('|').replaceAll(' ', '\\s+')})\\b`, 'gi');

/**
 * An ESLint rule: refuses the words in comments, in literals that hold a blank or are the message of an error, in
 * exported names and in the paths of files.
 */
export const refusedWords: Rule.RuleModule = {
  meta: {
    type: 'suggestion',
    schema: [],
    messages: { refused: '"{{word}}" is refused ({{where}}): see "Language" in CONTRIBUTING.md.' },
  },
  create(context) {
    function check(text: string, where: string, loc: AST.SourceLocation | null | undefined): void {
      for (const word of findRefusedWords(text)) {
        if (loc) context.report({ loc, messageId: 'refused', data: { word, where } });
      }
    }
    function checkName(node: Rule.Node): void {
      if (node.type === 'Identifier') check(separateWords(node.name), 'exported name', node.loc);
    }
    function checkErrorMessage(node: Rule.Node): void {
      const isMessage = node.type === 'Literal' && typeof node.value === 'string' && !/\s/.test(node.value);
      if (isMessage) check(String(node.value), 'text', node.loc);
    }
    return {
      Program(node) {
        check(separateWords(path.relative(context.cwd, context.filename)), 'file name', node.loc);
        for (const { value, loc } of joinLineComments(context.sourceCode.getAllComments())) {
          // The margin of a block comment would separate the words of an expression.
          check(value.replace(/\n\s*\*/g, ' '), 'comment', loc);
        }
      },
      Literal({ value, loc }) {
        if (typeof value === 'string' && /\s/.test(value)) check(value, 'text', loc);
      },
      'NewExpression[callee.name=/Error$/] > Literal': checkErrorMessage,
      TemplateElement({ value, loc }) {
        if (/\s/.test(value.raw)) check(value.cooked ?? value.raw, 'text', loc);
      },
      ':matches(ExportNamedDeclaration, ExportDefaultDeclaration) > * > Identifier.id': checkName,
      'ExportNamedDeclaration > VariableDeclaration > VariableDeclarator > Identifier.id': checkName,
      'ExportNamedDeclaration > VariableDeclaration > VariableDeclarator > ObjectPattern.id Identifier':
        checkName,
      ':matches(ExportSpecifier, ExportAllDeclaration) > Identifier.exported': checkName,
    };
  },
};

/** The refused words in a text, in lower case. */
function findRefusedWords(text: string): string[] {
  const checked = EXEMPT_TEXTS.reduce((rest, exempt) => rest.replace(exempt, ''), text);
  return [...checked.matchAll(PATTERN)].map(([word]) => word.toLowerCase().replace(/\s+/g, ' '));
}

/** Separates the words of an identifier or a path: `keys/printSSHNews2` -> `keys print SSH News 2`. */
function separateWords(name: string): string {
  return name
    .replace(/[-_./\\]/g, ' ')
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .replace(/([A-Z])([A-Z][a-z])/g, '$1 $2')
    .replace(/([A-Za-z])([0-9])/g, '$1 $2');
}

type SourceComment = ReturnType<Rule.RuleContext['sourceCode']['getAllComments']>[number];

/** Joins line comments of consecutive lines, so that an expression over two lines is found. */
function joinLineComments(comments: readonly SourceComment[]): SourceComment[] {
  const joined: SourceComment[] = [];
  for (const comment of comments) {
    const previous = joined.at(-1);
    const continues =
      previous?.type === 'Line' &&
      comment.type === 'Line' &&
      previous.loc?.end.line === (comment.loc?.start.line ?? 0) - 1;
    if (continues && previous.loc && comment.loc)
      joined[joined.length - 1] = {
        ...previous,
        value: `${previous.value} ${comment.value}`,
        loc: { start: previous.loc.start, end: comment.loc.end },
      };
    else joined.push(comment);
  }
  return joined;
}
