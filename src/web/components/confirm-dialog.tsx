import { Button, Group, Modal, TextInput } from '@mantine/core';
import { useState, type ReactNode } from 'react';
import { shellTexts as texts } from '../texts/shell.ts';
import { ErrorNotice } from './error-notice.tsx';

export interface ConfirmDialogProps {
  opened: boolean;
  onClose: () => void;
  title: string;
  /** What happens, in a sentence: names the object and the consequence. */
  children: ReactNode;
  /** Verb and object, e.g. "Delete key". */
  confirmLabel: string;
  /** The dialog closes when it resolves, and shows the error when it rejects. */
  onConfirm: () => Promise<unknown>;
  /** Text that the user types before the button is enabled, for what cannot be undone and is large. */
  typedText?: string;
  /** False for what can be undone. */
  isDangerous?: boolean;
}

/** Asks before something is deleted or ended. */
export function ConfirmDialog(props: ConfirmDialogProps): ReactNode {
  return (
    <Modal opened={props.opened} onClose={props.onClose} title={props.title}>
      {/* Below the modal, so that each opening starts without typed text and errors. */}
      <Content {...props} />
    </Modal>
  );
}

function Content({
  onClose,
  children,
  confirmLabel,
  onConfirm,
  typedText,
  isDangerous = true,
}: ConfirmDialogProps) {
  const [typed, setTyped] = useState('');
  const [isRunning, setRunning] = useState(false);
  const [error, setError] = useState<unknown>();
  const isConfirmed = typedText === undefined || typed.trim() === typedText;
  const confirm = async () => {
    setRunning(true);
    setError(undefined);
    try {
      await onConfirm();
      onClose();
    } catch (reason) {
      setError(reason);
    } finally {
      setRunning(false);
    }
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (isConfirmed && !isRunning) void confirm();
      }}
    >
      {children}
      {typedText !== undefined && (
        <TextInput
          mt="md"
          label={texts.typeToConfirm(typedText)}
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
          autoComplete="off"
          data-autofocus
        />
      )}
      <ErrorNotice error={error} />
      <Group mt="lg" justify="flex-end">
        <Button
          variant="default"
          onClick={onClose}
          {...(typedText === undefined ? { 'data-autofocus': true } : {})}
        >
          {texts.cancel}
        </Button>
        <Button
          type="submit"
          {...(isDangerous ? { color: 'red.9' } : {})}
          disabled={!isConfirmed}
          loading={isRunning}
        >
          {confirmLabel}
        </Button>
      </Group>
    </form>
  );
}
