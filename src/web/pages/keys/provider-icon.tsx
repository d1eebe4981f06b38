import type { ReactNode } from 'react';
import classes from './keys.module.css';

const ICONS = import.meta.glob<string>('./icons/*.svg', { eager: true, query: '?url', import: 'default' });

/** The provider's icon in the colour of the text; its first letter where there is none. Decoration: the name is beside it. */
export function ProviderIcon({ id, name }: { id: string; name: string }): ReactNode {
  const url = ICONS[`./icons/${id}.svg`];
  if (url === undefined)
    return (
      <span className={classes['letter']} aria-hidden="true">
        {name.slice(0, 1)}
      </span>
    );
  return <span className={classes['icon']} style={{ maskImage: `url("${url}")` }} aria-hidden="true" />;
}
