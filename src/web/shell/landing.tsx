import { useEffect, type ReactNode } from 'react';
import { shellTexts } from '../texts/shell.ts';
import { loginUrl } from './login-url.ts';
import { finishSignOut } from './other-tabs.ts';
import classes from './landing.module.css';

const texts = shellTexts.landing;

/** What a visitor without a session sees. */
export function Landing(): ReactNode {
  useEffect(finishSignOut, []);
  return (
    <main className={classes['landing']}>
      <p className={classes['product']}>{shellTexts.product}</p>
      <h1 className={classes['title']}>{texts.title}</h1>
      <p className={classes['lead']}>{texts.lead}</p>
      <p>
        <a className={classes['button']} href={loginUrl()}>
          {texts.signIn}
        </a>
      </p>
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
