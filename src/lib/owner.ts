import { z } from 'zod';

/** The owner of rows, stored keys, servers and runs. The id is Keycloak's id of the user or organization. */
export type Owner = UserOwner | `org:${string}`;
type UserOwner = `user:${string}`;

/**
 * The form of an owner in rows, the audit trail and the plaintext of encrypted texts. The id may hold any character:
 * Keycloak's id of a federated user contains the id of the other directory.
 */
const OWNER = /^(user|org):(.+)$/s;

interface ParsedOwner {
  owner: Owner;
  kind: 'user' | 'organization';
  id: string;
}

/** @param userId Keycloak's id of the user. */
export function userOwner(userId: string): UserOwner {
  return `user:${userId}`;
}

/** Reads an owner; undefined when the text is not one. */
export function parseOwner(text: string): ParsedOwner | undefined {
  const [owner, prefix, id] = OWNER.exec(text) ?? [];
  if (id === undefined) return undefined;
  return { owner: owner as Owner, kind: prefix === 'user' ? 'user' : 'organization', id };
}

/** @throws Error when the owner is not a user. */
export function getUserId(owner: Owner): string {
  const parsed = parseOwner(owner);
  if (parsed?.kind !== 'user') throw new Error(`${owner} is not a user`);
  return parsed.id;
}

/** An owner in a row of the database. */
export const OwnerText = z.custom<Owner>(
  (value) => typeof value === 'string' && parseOwner(value) !== undefined,
);
