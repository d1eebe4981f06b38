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
  'anew',
  'afresh',
  'aloud',
  'told',
  'hears',
  'heard',
  'news',
  'wish',
  'elsewhere',
  'lives',
  'stranger',
  'leftovers',
  'sign of life',
  'to be had',
  'made known',
  'set aside',
  'passed over',
  'lets go',
  'let go of',
  'at work',
  'is no more',
  'are no more',
  'no matter',
  'for the sake of',
];

/** Texts in which a refused word is a name of the field. */
const EXEMPT_TEXTS = [/\bthe (Unix )?(account|user|group) nobody\b/gi];

const PATTERN = new RegExp(`\\b(${REFUSED_WORDS.join('|').replaceAll(' ', '\\s+')})\\b`, 'gi');

/** An ESLint rule: refuses the words in comments, in literals that hold a blank, in exported names and in file names. */
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
    return {
      Program(node) {
        check(separateWords(path.basename(context.filename)), 'file name', node.loc);
        for (const { value, loc } of context.sourceCode.getAllComments()) {
          // The margin of a block comment would separate the words of an expression.
          check(value.replace(/\n\s*\*/g, ' '), 'comment', loc);
        }
      },
      Literal({ value, loc }) {
        if (typeof value === 'string' && /\s/.test(value)) check(value, 'text', loc);
      },
      TemplateElement({ value, loc }) {
        if (/\s/.test(value.raw)) check(value.raw, 'text', loc);
      },
      'ExportNamedDeclaration > :matches(FunctionDeclaration, ClassDeclaration, TSInterfaceDeclaration, TSTypeAliasDeclaration) > Identifier.id':
        checkName,
      'ExportNamedDeclaration > VariableDeclaration > VariableDeclarator > Identifier.id': checkName,
      'ExportSpecifier > Identifier.exported': checkName,
    };

    function checkName(node: Rule.Node): void {
      if (node.type === 'Identifier') check(separateWords(node.name), 'exported name', node.loc);
    }
  },
};

/** The refused words in a text, in lower case. */
function findRefusedWords(text: string): string[] {
  const checked = EXEMPT_TEXTS.reduce((rest, exempt) => rest.replace(exempt, ''), text);
  return [...checked.matchAll(PATTERN)].map(([word]) => word.toLowerCase().replace(/\s+/g, ' '));
}

/** Separates the words of an identifier or a file name: `printNewsOnce` -> `print News Once`. */
function separateWords(name: string): string {
  return name.replace(/[-_.]/g, ' ').replace(/([a-z0-9])([A-Z])/g, '$1 $2');
}
