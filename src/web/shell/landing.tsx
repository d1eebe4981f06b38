import { useEffect, type ReactNode } from 'react';
import { shellTexts } from '../texts/shell.ts';
import { loginUrl } from './login-url.ts';
import { Mark } from './mark.tsx';
import { finishSignOut } from './other-tabs.ts';
import classes from './landing.module.css';

const texts = shellTexts.landing;

/** What a visitor without a session sees. */
export function Landing(): ReactNode {
  useEffect(finishSignOut, []);
  return (
    <main className={classes['landing']}>
      <p className={classes['product']}>
        <Mark />
        {shellTexts.product}
      </p>
      <div className={classes['columns']}>
        <div>
          <h1 className={classes['title']}>
            {texts.title.map((sentence) => (
              <span key={sentence}>{sentence} </span>
            ))}
          </h1>
          <p className={classes['lead']}>{texts.lead}</p>
          <a className={classes['button']} href={loginUrl()}>
            {texts.signIn}
          </a>
        </div>
        <Example />
      </div>
      <ul className={classes['points']}>
        {texts.points.map((point) => (
          <li key={point.title}>
            <h2>{point.title}</h2>
            <p>{point.text}</p>
          </li>
        ))}
      </ul>
    </main>
  );
}

/** A request to this installation, and the headers that name who paid. */
function Example(): ReactNode {
  return (
    <figure className={classes['example']}>
      <pre>
        <code>{texts.request(window.location.origin)}</code>
      </pre>
      <pre className={classes['receipt']}>
        <code>{texts.receipt}</code>
      </pre>
      <figcaption>{texts.caption}</figcaption>
    </figure>
  );
}
