import type UserRepresentation from '@keycloak/keycloak-admin-client/lib/defs/userRepresentation.js';
import { readAttributes } from '../vault.ts';

/**
 * A key in the layout of the previous system: one key per provider in attributes of the user,
 * `byok_<provider>_key|label|added_date|endpoint|last_tested|test_status`. The key is a Fernet token of its bare text.
 * Test results are not read: the tests of that system could not fail.
 */
export interface LegacyKey {
  provider: string;
  token: string;
  label: string | null;
  endpoint: string | null;
  /** Undefined where the stored date is invalid or in the future. */
  addedAt: Date | undefined;
}

const TOKEN_ATTRIBUTE = /^byok_(\w+)_key$/;
/** The limit for new labels. Longer legacy labels are cut. */
const MAX_LABEL_LENGTH = 120;
/** A date and time without a zone, as Python's `utcnow().isoformat()` writes it: it means UTC. */
const DATE_WITHOUT_ZONE = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/;

/** One key per provider. */
export function readLegacyKeys(user: UserRepresentation): LegacyKey[] {
  const attributes = readAttributes(user);
  return Object.entries(attributes).flatMap(([name, [token = '']]) => {
    const provider = TOKEN_ATTRIBUTE.exec(name)?.[1];
    if (provider === undefined) return [];
    const text = (field: string) => attributes[`byok_${provider}_${field}`]?.[0]?.trim() ?? '';
    return [
      {
        provider,
        token: token.trim(),
        label: Array.from(text('label')).slice(0, MAX_LABEL_LENGTH).join('').trim() || null,
        endpoint: text('endpoint') || null,
        addedAt: parseDate(text('added_date')),
      },
    ];
  });
}

function parseDate(text: string): Date | undefined {
  const date = new Date(DATE_WITHOUT_ZONE.test(text) ? `${text.replace(' ', 'T')}Z` : text);
  return Number.isNaN(date.getTime()) || date.getTime() > Date.now() ? undefined : date;
}
