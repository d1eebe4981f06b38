import { useForm, type UseFormInput, type UseFormReturnType } from '@mantine/form';
import { useState } from 'react';
import { useMe } from './api/me.ts';

const PREFIX = 'draft:';

/** Removes the drafts of all users, or of all but one. */
export function clearDrafts(exceptUserId?: string): void {
  for (const key of Object.keys(sessionStorage))
    if (
      key.startsWith(PREFIX) &&
      (exceptUserId === undefined || !key.startsWith(`${PREFIX}${exceptUserId}:`))
    )
      sessionStorage.removeItem(key);
}

export interface DraftFormOptions<Values extends object> extends UseFormInput<Values> {
  /** Names the draft within the user's drafts, e.g. `key:openai`. */
  draftName: string;
  /** Selects what is kept while the user signs in again or reloads. Never a secret. */
  toDraft: (values: Values) => Partial<Values>;
}

export interface DraftForm<Values extends object> {
  form: UseFormReturnType<Values>;
  /** True when the initial values come from a draft, so that secret fields must be asked for again. */
  isRestored: boolean;
  /** After saving, and when the user gives up. */
  discardDraft: () => void;
}

/** Mantine's form with a draft in this tab's storage, which survives signing in again. */
export function useDraftForm<Values extends object>(options: DraftFormOptions<Values>): DraftForm<Values> {
  const { draftName, toDraft, initialValues, onValuesChange, ...rest } = options;
  const key = `${PREFIX}${useMe().id}:${draftName}`;
  const [draft] = useState(() => readDraft<Values>(key, initialValues));
  const form = useForm<Values>({
    ...rest,
    initialValues: { ...initialValues, ...draft } as Values,
    onValuesChange: (values, previous) => {
      sessionStorage.setItem(key, JSON.stringify(toDraft(values)));
      onValuesChange?.(values, previous);
    },
  });
  return { form, isRestored: draft !== undefined, discardDraft: () => sessionStorage.removeItem(key) };
}

/** Members that the form does not have, or has with another type, are of another version of the page: they are dropped. */
function readDraft<Values extends object>(
  key: string,
  initialValues: Values | undefined,
): Partial<Values> | undefined {
  const text = sessionStorage.getItem(key);
  if (text === null) return undefined;
  const initial = (initialValues ?? {}) as Record<string, unknown>;
  const stored = Object.entries(JSON.parse(text) as Record<string, unknown>);
  return Object.fromEntries(
    stored.filter(([name, value]) => name in initial && typeof initial[name] === typeof value),
  ) as Partial<Values>;
}
