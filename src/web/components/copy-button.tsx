import { Button, type ButtonProps } from '@mantine/core';
import { useEffect, useState, type ReactNode } from 'react';
import { shellTexts } from '../texts/shell.ts';

/** Time for which the button says that it copied, ms. */
const CONFIRMATION_MS = 2_000;

export interface CopyButtonProps extends ButtonProps {
  /** What is copied; read on click, so that a secret need not be rendered. */
  value: string | (() => string);
  /** Defaults to "Copy". */
  label?: string;
}

/** Copies a text and says so, also to screen readers. */
export function CopyButton({ value, label = shellTexts.copy, ...button }: CopyButtonProps): ReactNode {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return;
    const timer = setTimeout(() => setCopied(false), CONFIRMATION_MS);
    return () => clearTimeout(timer);
  }, [isCopied]);
  const copy = async () => {
    setCopied(await copyText(typeof value === 'string' ? value : value()));
  };
  return (
    <Button variant="default" size="xs" {...button} onClick={() => void copy()}>
      <span aria-live="polite">{isCopied ? shellTexts.copied : label}</span>
    </Button>
  );
}

/** @returns false if the browser refused. Works over plain http, too, where browsers have no clipboard API. */
async function copyText(text: string): Promise<boolean> {
  if (window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not permitted, e.g. in a frame. The older way may be.
    }
  }
  return copyBySelection(text);
}

function copyBySelection(text: string): boolean {
  const focused = document.activeElement;
  const area = document.createElement('textarea');
  area.value = text;
  area.readOnly = true;
  area.className = 'copy-source';
  // Inside an open dialog, since a dialog may keep the focus within.
  (focused?.closest('[role="dialog"]') ?? document.body).append(area);
  area.select();
  try {
    // eslint-disable-next-line @typescript-eslint/no-deprecated -- the only way without a secure context
    return document.execCommand('copy');
  } finally {
    area.remove();
    if (focused instanceof HTMLElement) focused.focus();
  }
}
