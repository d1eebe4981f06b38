import { Anchor, Button, TextInput } from '@mantine/core';
import { memo, useLayoutEffect, useRef, useState, type ReactNode } from 'react';
import { CopyButton } from '../../components/copy-button.tsx';
import { runsTexts as texts } from '../../texts/runs.ts';
import type { OutputSpan } from './output-text.ts';
import type { OutputBlock, OutputLine, RunOutput } from './run-output.ts';
import classes from './runs.module.css';

/** So near to its end, in px, the output follows what arrives. */
const FOLLOW_DISTANCE = 40;

/** The output of a run: coloured, searchable, following its end until the reader scrolls up. No live region. */
export function OutputView({ output, runId }: { output: RunOutput; runId: string }): ReactNode {
  const [search, setSearch] = useState('');
  const { container, isFollowing, onScroll, jumpToEnd } = useFollow(output);
  const words = search.toLowerCase();
  const matching =
    words === '' ? undefined : listLines(output).filter(({ text }) => text.toLowerCase().includes(words));
  return (
    <section aria-labelledby="output">
      <div className={classes['tools']}>
        <h2 id="output">{texts.output}</h2>
        <TextInput
          type="search"
          size="xs"
          aria-label={texts.search}
          placeholder={texts.search}
          value={search}
          onChange={(event) => {
            setSearch(event.currentTarget.value);
          }}
        />
        {matching !== undefined && <span role="status">{texts.matches(matching.length)}</span>}
        <CopyButton value={() => toText(output)} label={texts.copy} />
        <Button
          variant="default"
          size="xs"
          onClick={() => {
            download(`run-${runId}.txt`, toText(output));
          }}
        >
          {texts.download}
        </Button>
      </div>
      <div
        ref={container}
        className={classes['output']}
        onScroll={onScroll}
        tabIndex={0}
        role="group"
        aria-labelledby="output"
      >
        {output.hiddenLines > 0 && (
          <p className={classes['gap']}>{texts.earlierHidden(output.hiddenLines)}</p>
        )}
        {matching === undefined ? (
          output.blocks.map((block) => <Block key={block.start} block={block} />)
        ) : (
          <Block block={{ start: 0, lines: matching }} />
        )}
        {output.blocks.length === 0 && (
          <p className={classes['gap']}>{output.exit === undefined ? texts.waiting : texts.noOutput}</p>
        )}
      </div>
      {!isFollowing && (
        <Button mt="xs" size="xs" variant="default" onClick={jumpToEnd}>
          {texts.follow}
        </Button>
      )}
    </section>
  );
}

/** Scrolls to the end whenever output arrives, unless the reader has scrolled away from it. */
function useFollow(output: RunOutput) {
  const container = useRef<HTMLDivElement>(null);
  const [isFollowing, setFollowing] = useState(true);
  const jumpToEnd = () => {
    setFollowing(true);
    container.current?.scrollTo({ top: container.current.scrollHeight });
  };
  useLayoutEffect(() => {
    if (isFollowing) container.current?.scrollTo({ top: container.current.scrollHeight });
  }, [output, isFollowing]);
  const onScroll = () => {
    const element = container.current;
    if (element === null) return;
    setFollowing(element.scrollHeight - element.scrollTop - element.clientHeight < FOLLOW_DISTANCE);
  };
  return { container, isFollowing, onScroll, jumpToEnd };
}

/** The browser skips blocks that are out of sight (content-visibility), and React those that did not change. */
const Block = memo(function Block({ block }: { block: OutputBlock }): ReactNode {
  return (
    <div className={classes['block']}>
      {block.lines.map((line, index) => (
        // Lines are only ever added at the end of a block.
        <Line key={index} line={line} />
      ))}
    </div>
  );
});

const Line = memo(function Line({ line }: { line: OutputLine }): ReactNode {
  if (line.dropped !== undefined)
    return <p className={classes['gap']}>{texts.dropped(line.dropped.bytes, line.dropped.stream)}</p>;
  if (line.image !== undefined)
    return (
      <figure className={classes['figure']}>
        <img src={line.image} alt={texts.imageAlt} />
        <Anchor href={line.image} download="figure.png">
          {texts.downloadImage}
        </Anchor>
      </figure>
    );
  return (
    <div className={line.stream === 'stderr' ? classes['stderr'] : undefined}>
      {line.spans.map((span, index) => (
        <Span key={index} span={span} />
      ))}
    </div>
  );
});

function Span({ span }: { span: OutputSpan }): ReactNode {
  const { text, foreground, background, isBold, isHidden } = span;
  if (isHidden)
    return (
      <span className={classes['hidden']} title={texts.hiddenCharacter(text)}>
        {text}
      </span>
    );
  if (foreground === undefined && background === undefined && !isBold) return text;
  return (
    <span
      data-fg={foreground?.replace('ansi-', '')}
      data-bg={background?.replace('ansi-', '')}
      className={isBold ? classes['bold'] : undefined}
    >
      {text}
    </span>
  );
}

function listLines(output: RunOutput): OutputLine[] {
  return output.blocks.flatMap(({ lines }) => lines);
}

function toText(output: RunOutput): string {
  return listLines(output)
    .map(({ text, dropped }) =>
      dropped === undefined ? text : `[${texts.dropped(dropped.bytes, dropped.stream)}]`,
    )
    .join('\n');
}

function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: 'text/plain' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}
