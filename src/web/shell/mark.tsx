import type { ReactNode } from 'react';
import icon from '../icon.svg';

/** The product's sign, beside its name. */
export function Mark(): ReactNode {
  return <img src={icon} width="24" height="24" alt="" />;
}
