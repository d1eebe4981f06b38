import { Button, Group, Modal, Text } from '@mantine/core';
import { useState, type ReactNode } from 'react';
import type { KeyView, ProviderView } from '../../../keys/schema.ts';
import { useMe } from '../../api/me.ts';
import { ConfirmDialog } from '../../components/confirm-dialog.tsx';
import { keysTexts as texts } from '../../texts/keys.ts';
import { KeyCard } from './key-card.tsx';
import { KeyForm } from './key-form.tsx';
import { useDeleteKeys } from '../../api/keys.ts';
import { WhoPays } from './who-pays.tsx';
import classes from './keys.module.css';

/** Keys of one provider (`pool_full` beyond). */
const MAX_KEYS = 10;

export interface ManageDialogProps {
  provider: ProviderView;
  keys: readonly KeyView[];
  onClose: () => void;
}

/** The keys of one provider, and the form for another one. */
export function ManageDialog({ provider, keys, onClose }: ManageDialogProps): ReactNode {
  const { features } = useMe();
  const [isAdding, setAdding] = useState(keys.length === 0);
  return (
    <Modal opened onClose={onClose} size="xl" title={texts.dialogTitle(provider.name)}>
      <WhoPays provider={provider} />
      {keys.length > 0 && (
        <ul className={classes['keys']}>
          {keys.map((key) => (
            <KeyCard key={key.id} provider={provider} stored={key} />
          ))}
        </ul>
      )}
      {isAdding && features.byok ? (
        <KeyForm
          provider={provider}
          onDone={() => {
            setAdding(false);
          }}
          onCancel={() => {
            if (keys.length === 0) onClose();
            else setAdding(false);
          }}
        />
      ) : (
        <Footer
          provider={provider}
          count={keys.length}
          onAdd={() => {
            setAdding(true);
          }}
        />
      )}
    </Modal>
  );
}

function Footer(props: { provider: ProviderView; count: number; onAdd: () => void }): ReactNode {
  const { provider, count, onAdd } = props;
  const { features } = useMe();
  const [isDeleting, setDeleting] = useState(false);
  const remove = useDeleteKeys();
  return (
    <Group justify="space-between" mt="md">
      <Text c="dimmed" size="sm">
        {texts.ofMaximum(count, MAX_KEYS)}
        {count >= MAX_KEYS && `. ${texts.fullHint}`}
      </Text>
      <Group gap="xs">
        {count > 1 && (
          <Button
            variant="subtle"
            color="red"
            onClick={() => {
              setDeleting(true);
            }}
          >
            {texts.deleteAll}
          </Button>
        )}
        <Button disabled={count >= MAX_KEYS || !features.byok} onClick={onAdd}>
          {texts.addKey}
        </Button>
      </Group>
      <ConfirmDialog
        opened={isDeleting}
        title={texts.deleteAllTitle(provider.name)}
        confirmLabel={texts.deleteAll}
        typedText={provider.name}
        isDangerous
        onConfirm={() => remove.mutateAsync({ provider: provider.id })}
        onClose={() => {
          setDeleting(false);
        }}
      >
        {texts.deleteAllText(count, provider.name)}
      </ConfirmDialog>
    </Group>
  );
}
