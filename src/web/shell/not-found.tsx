import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';
import { PageHeader } from '../components/page-header.tsx';
import { shellTexts } from '../texts/shell.ts';

const texts = shellTexts.errors;

export function NotFound(): ReactNode {
  return (
    <>
      <PageHeader title={texts.notFoundTitle} />
      <p>{texts.notFoundText}</p>
      <p>
        <Link to="/">{texts.toStart}</Link>
      </p>
    </>
  );
}
