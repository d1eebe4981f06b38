import { z } from 'zod';
import { adminClient, stack, type TestUser } from './stack.ts';

const Attributes = z.record(z.string(), z.array(z.string()));

/** A user's vault record as shown to administrators. */
export interface VaultView {
  id: string;
  attributes: Record<string, string[]>;
}

/** @throws Error when the user has no vault record */
export async function readVaultRecord(
  user: Pick<TestUser, 'id'>,
  realm: string = stack.keycloak.vaultRealm,
): Promise<VaultView> {
  const admin = await adminClient(realm);
  const [found] = await admin.users.find({ username: `user.${user.id}`, exact: true });
  const id = found?.id;
  if (id === undefined) throw new Error(`${user.id} has no vault record`);
  return { id, attributes: Attributes.parse((await admin.users.findOne({ id }))?.attributes) };
}

/** Replaces some attributes of the record and saves it, like the admin console. */
export async function editVaultRecord(
  user: Pick<TestUser, 'id'>,
  change: Record<string, string[]>,
): Promise<void> {
  const admin = await adminClient(stack.keycloak.vaultRealm);
  const { id } = await readVaultRecord(user);
  const { userProfileMetadata: _metadata, ...stored } = (await admin.users.findOne({ id })) ?? {};
  await admin.users.update({ id }, { ...stored, attributes: { ...stored.attributes, ...change } });
}
