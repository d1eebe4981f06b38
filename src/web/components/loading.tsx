import { VisuallyHidden } from '@mantine/core';
import type { ReactNode } from 'react';
import { shellTexts } from '../texts/shell.ts';
import classes from './states.module.css';

/** Placeholder of content that is being read. @param props.lines number of grey bars, about as high as the content. */
export function Loading({ lines = 5 }: { lines?: number }): ReactNode {
  return (
    <div className={classes['loading']} role="status">
      <VisuallyHidden>{shellTexts.loading}</VisuallyHidden>
      {Array.from({ length: lines }, (_, index) => (
        <div key={index} className={classes['bar']} />
      ))}
    </div>
  );
}
