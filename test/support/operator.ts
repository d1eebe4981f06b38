import { randomBytes } from 'node:crypto';
import { adminClient } from './stack.ts';

/** Gives a user the role inside a composite role, as administrators of a realm do. @returns removes it. */
export async function makeOperator(userId: string): Promise<() => Promise<void>> {
  const admin = await adminClient();
  const name = `role-${randomBytes(6).toString('hex')}`;
  await admin.roles.create({ name });
  const [outer, inner] = [
    await admin.roles.findOneByName({ name }),
    await admin.roles.findOneByName({ name: 'ops-operator' }),
  ];
  const roles = [outer, inner].map((role) => ({ id: role?.id ?? '', name: role?.name ?? '' }));
  await admin.roles.createComposite({ roleId: roles[0]?.id ?? '' }, roles.slice(1));
  const mapping = { id: userId, roles: roles.slice(0, 1) };
  await admin.users.addRealmRoleMappings(mapping);
  return () => admin.users.delRealmRoleMappings(mapping);
}
