/** A fenced block of a Markdown file that a reader runs. */
export interface CodeBlock {
  /** The nearest heading above, without `#`. */
  heading: string;
  language: 'bash' | 'js' | 'python';
  code: string;
  /** Line of the block's fence, from 1. */
  line: number;
  /**
   * From a comment `<!-- walk: ... -->` above the block. `own terminal`: it runs until Ctrl-C; `your values`: lines
   * `NAME=value` with examples; `not run, <reason>`. Empty otherwise.
   */
  mark: string;
}

const RUNNABLE = /^(bash|js|python)$/;
const FENCE = /^```(\w*)$/;
const MARK = /^<!-- walk: (own terminal|your values|not run, .+) -->$/;

/** @throws Error for a mark that is unknown or not followed by a block. */
export function parseCodeBlocks(markdown: string): CodeBlock[] {
  const blocks: CodeBlock[] = [];
  const lines = markdown.split('\n');
  let heading = '';
  let mark = '';
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at] ?? '';
    const language = FENCE.exec(line)?.[1];
    if (language !== undefined) {
      const end = lines.indexOf('```', at + 1);
      const code = `${lines.slice(at + 1, end).join('\n')}\n`;
      if (RUNNABLE.test(language))
        blocks.push({ heading, language: language as CodeBlock['language'], code, line: at + 1, mark });
      mark = '';
      at = end;
    } else if (line.startsWith('<!-- walk:')) {
      mark = MARK.exec(line)?.[1] ?? '';
      if (mark === '') throw new Error(`line ${at + 1}: unknown mark: ${line}`);
    } else if (line.trim() !== '') {
      if (mark !== '') throw new Error(`line ${at + 1}: a mark is not followed by a block of code`);
      heading = /^#+ (.+)$/.exec(line)?.[1] ?? heading;
    }
  }
  return blocks;
}

/**
 * Replaces the examples of a block of values.
 * @throws Error unless the block consists of lines `NAME=value` whose names are those of `values`.
 */
export function fillIn({ code, line }: CodeBlock, values: Record<string, string>): string {
  return code.replace(/^.+$/gm, (assignment) => {
    const name = /^([A-Z_]+)=\S+$/.exec(assignment)?.[1] ?? '';
    const value = values[name];
    if (value === undefined) throw new Error(`line ${line}: no value is known for ${assignment}`);
    return `${name}='${value}'`;
  });
}
