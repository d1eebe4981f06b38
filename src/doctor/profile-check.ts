import type { UserProfileConfig } from '@keycloak/keycloak-admin-client/lib/defs/userProfileMetadata.js';
import { TIERS } from '../config/tiers.ts';
import { createError, createOk, createWarning, type Finding } from './finding.ts';

/** What a realm's user profile is used for. */
export interface ProfileUse {
  realm: string;
  holdsUsers: boolean;
  holdsKeys: boolean;
  /** Ids of the providers. Keys are stored in the attribute `byok_<provider>`. */
  providers: readonly string[];
}

/** Maximum length of a stored key, in characters. */
const MAX_ATTRIBUTE_LENGTH = 2048;
const EDIT_PROFILE = 'Realm settings > User profile';

/**
 * Checks who can see and edit the tier and the stored keys in a realm's user profile. If users can, they can set
 * their own tier, or read and replace encrypted keys.
 */
export function checkProfile(profile: UserProfileConfig, use: ProfileUse): Finding[] {
  return [
    ...(use.holdsUsers ? [checkTier(profile, use.realm), checkOrganizationAdmin(profile, use.realm)] : []),
    ...(use.holdsUsers || use.holdsKeys ? [checkKeysAreHidden(profile, use)] : []),
    ...(use.holdsKeys ? [checkKeysCanBeStored(profile, use)] : []),
  ];
}

const readPolicy = (profile: UserProfileConfig): string => profile.unmanagedAttributePolicy ?? 'DISABLED';
const findAttribute = (profile: UserProfileConfig, name: string) =>
  profile.attributes?.find((attribute) => attribute.name === name);

function checkTier(profile: UserProfileConfig, realm: string): Finding {
  const check = `the tier in realm ${realm}`;
  const declare = `${EDIT_PROFILE}: declare subscription_tier with view [admin, user] and edit [admin], as in keycloak/ops-center-realm.json`;
  const tier = findAttribute(profile, 'subscription_tier');
  if (tier === undefined) {
    return readPolicy(profile) === 'ENABLED'
      ? createError(
          check,
          'subscription_tier is not declared, and users can write undeclared attributes',
          declare,
        )
      : createWarning(check, 'subscription_tier is not declared: no user can get a tier', declare);
  }
  if (tier.permissions?.edit?.includes('user'))
    return createError(check, 'users can change their own tier', declare);
  if (!tier.permissions?.edit?.includes('admin'))
    return createWarning(check, 'no admin can change a tier', declare);
  const options = (tier.validations?.['options'] as { options?: string[] } | undefined)?.options;
  const missing = options === undefined ? [] : TIERS.filter((name) => !options.includes(name));
  if (missing.length > 0) return createWarning(check, `cannot be ${missing.join(', ')}`, declare);
  return createOk(check, 'only admins can change it');
}

function checkOrganizationAdmin(profile: UserProfileConfig, realm: string): Finding {
  const check = `organization_admin in realm ${realm}`;
  const declare = `${EDIT_PROFILE}: declare organization_admin with view [admin] and edit [admin], or set unmanaged attributes to "Only administrators can write" or off`;
  const attribute = findAttribute(profile, 'organization_admin');
  const isUserEditable =
    attribute === undefined
      ? readPolicy(profile) === 'ENABLED'
      : attribute.permissions?.edit?.includes('user') === true;
  return isUserEditable
    ? createError(check, 'users can make themselves administrators of organizations', declare)
    : createOk(check, 'users cannot change it');
}

/** No user can see or edit a stored key, in any realm that can hold one. */
function checkKeysAreHidden(profile: UserProfileConfig, { realm, holdsKeys }: ProfileUse): Finding {
  const check = `stored keys in realm ${realm} are hidden from users`;
  const exposed = (profile.attributes ?? []).filter(
    ({ name = '', permissions }) =>
      name.startsWith('byok_') &&
      [...(permissions?.view ?? []), ...(permissions?.edit ?? [])].some((role) => role !== 'admin'),
  );
  if (exposed.length > 0) {
    const names = exposed.map(({ name }) => name).join(', ');
    return createError(
      check,
      `${names} can be seen or changed by users`,
      `${EDIT_PROFILE}: give ${names} view [admin] and edit [admin]`,
    );
  }
  const policy = readPolicy(profile);
  if (holdsKeys && (policy === 'ENABLED' || policy === 'ADMIN_VIEW')) {
    return createError(
      check,
      `the policy for unmanaged attributes is ${policy}`,
      `Realm settings > General: set "Unmanaged Attributes" to "Only administrators can write" (ADMIN_EDIT)`,
    );
  }
  return createOk(check, 'they are');
}

function checkKeysCanBeStored(profile: UserProfileConfig, { realm, providers }: ProfileUse): Finding {
  const check = `keys can be stored in realm ${realm}`;
  if (readPolicy(profile) !== 'DISABLED')
    return createOk(check, `undeclared attributes are kept (${readPolicy(profile)})`);
  const unusable = providers
    .map((provider) => `byok_${provider}`)
    .filter((name) => !canHoldKeys(findAttribute(profile, name)));
  if (unusable.length === 0) return createOk(check, 'every provider has its attribute');
  return createError(
    check,
    `undeclared attributes are dropped without an error, and ${unusable.join(', ')} cannot hold keys`,
    `Realm settings > General: set "Unmanaged Attributes" to "Only administrators can write"; or declare each of them in the user profile, multivalued, view [admin], edit [admin], length at least ${MAX_ATTRIBUTE_LENGTH}`,
  );
}

function canHoldKeys(attribute: NonNullable<UserProfileConfig['attributes']>[number] | undefined): boolean {
  if (!attribute?.permissions?.edit?.includes('admin') || attribute.multivalued !== true) return false;
  const length = attribute.validations?.['length'] as { max?: number | string } | undefined;
  return Number(length?.max ?? 0) >= MAX_ATTRIBUTE_LENGTH;
}
