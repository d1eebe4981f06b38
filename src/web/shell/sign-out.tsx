import type { ReactNode } from 'react';
import { clearDrafts } from '../drafts.ts';

/** A form, since signing out redirects to Keycloak. @param props.children its submit button. */
export function SignOutForm({ children }: { children: ReactNode }): ReactNode {
  return (
    <form method="post" action="/auth/logout" onSubmit={() => clearDrafts()}>
      {children}
    </form>
  );
}
