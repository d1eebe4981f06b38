import { ActionIcon, Drawer } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { Link, useLocation } from '@tanstack/react-router';
import { useEffect, type ReactNode } from 'react';
import type { CurrentUser } from '../api/me.ts';
import { shellTexts as texts } from '../texts/shell.ts';
import { Mark } from './mark.tsx';
import { NAVIGATION } from './navigation.ts';
import classes from './shell.module.css';
import { SignOutForm } from './sign-out.tsx';
import { StatusBar } from './status-bar.tsx';

/** The frame of each page: header, menu (a drawer on narrow screens) and the main area. */
export function Shell({ me, children }: { me: CurrentUser; children: ReactNode }): ReactNode {
  const [isMenuOpen, menu] = useDisclosure(false);
  const { pathname } = useLocation();
  const closeMenu = menu.close;
  useEffect(closeMenu, [pathname, closeMenu]);
  useEffect(() => {
    // The width from which the menu is beside the page (shell.module.css).
    const isWide = window.matchMedia('(min-width: 769px)');
    isWide.addEventListener('change', closeMenu);
    return () => isWide.removeEventListener('change', closeMenu);
  }, [closeMenu]);
  return (
    <>
      <a className={classes['skip']} href="#content">
        {texts.skipToContent}
      </a>
      <header className={classes['header']}>
        <ActionIcon
          className={classes['menuButton']}
          variant="subtle"
          color="gray"
          size={44}
          aria-label={texts.openMenu}
          onClick={menu.open}
        >
          <MenuIcon />
        </ActionIcon>
        <Link to="/" className={classes['product']}>
          <Mark />
          {texts.product}
        </Link>
        <span className={classes['user']}>{me.username}</span>
        <SignOutForm>
          <button className={classes['signOut']} type="submit">
            {texts.signOut}
          </button>
        </SignOutForm>
      </header>
      <StatusBar />
      <div className={classes['columns']}>
        <nav className={classes['sidebar']} aria-label={texts.menu}>
          <NavigationList />
        </nav>
        <main id="content" className={classes['main']} tabIndex={-1}>
          {children}
        </main>
      </div>
      <Drawer opened={isMenuOpen} onClose={menu.close} title={texts.menu} size={280}>
        <nav aria-label={texts.menu}>
          <NavigationList />
        </nav>
      </Drawer>
    </>
  );
}

function NavigationList(): ReactNode {
  return (
    <ul className={classes['navigation']}>
      {NAVIGATION.map(({ to, label }) => (
        <li key={to}>
          <Link to={to} activeProps={{ 'aria-current': 'page' }}>
            {label}
          </Link>
        </li>
      ))}
    </ul>
  );
}

function MenuIcon(): ReactNode {
  return (
    <svg width="20" height="20" viewBox="0 0 20 20" aria-hidden="true">
      <path d="M3 5h14M3 10h14M3 15h14" stroke="currentColor" strokeWidth="2" strokeLinecap="round" />
    </svg>
  );
}
