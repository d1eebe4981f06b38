import { useEffect, useRef, type ReactNode } from 'react';
import { shellTexts } from '../texts/shell.ts';
import classes from './page-header.module.css';

/** False until a page was shown: opening the site leaves the focus where the browser puts it. */
let hasShownPage = false;

export interface PageHeaderProps {
  title: string;
  /** One sentence below the title. */
  description?: ReactNode;
  /** Buttons at the right. */
  actions?: ReactNode;
}

/** The only `h1` of a page. Names the document, and takes the focus when the user came from another page. */
export function PageHeader({ title, description, actions }: PageHeaderProps): ReactNode {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    if (hasShownPage) heading.current?.focus({ preventScroll: true });
    hasShownPage = true;
  }, []);
  useEffect(() => {
    document.title = `${title} · ${shellTexts.product}`;
  }, [title]);
  return (
    <div className={classes['header']}>
      <div className={classes['words']}>
        <h1 className={classes['title']} ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {description !== undefined && <p className={classes['description']}>{description}</p>}
      </div>
      {actions !== undefined && <div className={classes['actions']}>{actions}</div>}
    </div>
  );
}
