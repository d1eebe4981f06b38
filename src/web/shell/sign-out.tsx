import type { ReactNode } from 'react';
import { beginSignOut } from './other-tabs.ts';

/** A form, since signing out redirects to Keycloak. @param props.children its submit button. */
export function SignOutForm({ children }: { children: ReactNode }): ReactNode {
  return (
    <form method="post" action="/auth/logout" onSubmit={beginSignOut}>
      {children}
    </form>
  );
}
