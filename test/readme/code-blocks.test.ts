import { expect, it } from '@jest/globals';
import { fillIn, parseCodeBlocks } from './code-blocks.ts';

const fence = (language: string, code: string) => `\`\`\`${language}\n${code}\n\`\`\`\n`;

it('the blocks that a reader runs are listed with their heading, their line and their mark', () => {
  const markdown = `# A\n\n${fence('bash', 'one\n\ntwo')}\n## B\n\n<!-- walk: own terminal -->\n\n${fence('bash', '# three')}\n${fence('yaml', 'no: program')}`;
  expect(parseCodeBlocks(markdown)).toEqual([
    { heading: 'A', language: 'bash', code: 'one\n\ntwo\n', line: 3, mark: '' },
    { heading: 'B', language: 'bash', code: '# three\n', line: 13, mark: 'own terminal' },
  ]);
});

it.each([
  ['without a reason', `<!-- walk: not run -->\n\n${fence('bash', 'x')}`],
  ['of an unknown kind', `<!-- walk: skip -->\n\n${fence('bash', 'x')}`],
  ['without a block', `<!-- walk: your values -->\n\nText\n`],
])('a mark %s is an error', (_what, markdown) => {
  expect(() => parseCodeBlocks(markdown)).toThrow(/mark/);
});

it('values replace the examples of the same names, and nothing else', () => {
  const [block] = parseCodeBlocks(
    `<!-- walk: your values -->\n\n${fence('bash', 'HOST=dev.example.com\nKEY=~/.ssh/id')}`,
  );
  if (block === undefined) throw new Error('no block');
  expect(fillIn(block, { HOST: 'a', KEY: '/b c' })).toBe("HOST='a'\nKEY='/b c'\n");
  expect(() => fillIn(block, { HOST: 'a' })).toThrow('KEY=');
  expect(() => fillIn({ ...block, code: 'curl $HOST\n' }, { HOST: 'a' })).toThrow('curl');
});
