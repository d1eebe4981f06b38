import { describe, expect, it } from '@jest/globals';
import type { UserProfileConfig } from '@keycloak/keycloak-admin-client/lib/defs/userProfileMetadata.js';
import { readFileSync } from 'node:fs';
import { checkProfile, type ProfileUse } from '../../src/doctor/profile-check.ts';

type Change = (profile: UserProfileConfig) => void;

function profileOf(file: string): UserProfileConfig {
  const realm = JSON.parse(readFileSync(`keycloak/${file}`, 'utf8')) as {
    components: Record<string, [{ config: Record<string, [string]> }]>;
  };
  const [provider] = realm.components['org.keycloak.userprofile.UserProfileProvider'] ?? [];
  return JSON.parse(provider?.config['kc.user.profile.config']?.[0] ?? '{}') as UserProfileConfig;
}

const mainRealm: ProfileUse = {
  realm: 'r',
  holdsUsers: true,
  holdsKeys: false,
  providers: ['openai', 'custom'],
};
const vaultRealm: ProfileUse = { ...mainRealm, holdsUsers: false, holdsKeys: true };
const oneRealm: ProfileUse = { ...mainRealm, holdsKeys: true };

function levels(file: string, use: ProfileUse, change: Change): string[] {
  const profile = profileOf(file);
  change(profile);
  return checkProfile(profile, use)
    .filter(({ level }) => level !== 'ok')
    .map(({ level, fix }) => (fix === '' ? 'without a fix' : level));
}

const MAIN = 'ops-center-realm.json';
const VAULT = 'ops-center-vault-realm.json';
const noChange: Change = () => undefined;
const policy =
  (value: string): Change =>
  (profile) => {
    profile.unmanagedAttributePolicy = value as never;
  };
const drop =
  (name: string, next: Change = noChange): Change =>
  (profile) => {
    profile.attributes = (profile.attributes ?? []).filter((attribute) => attribute.name !== name);
    next(profile);
  };
const permit =
  (name: string, view: string[], edit: string[]): Change =>
  (profile) => {
    const attribute = profile.attributes?.find((candidate) => candidate.name === name);
    if (attribute) attribute.permissions = { view, edit };
    else (profile.attributes ??= []).push({ name, multivalued: true, permissions: { view, edit } });
  };
const declareKeys =
  (max: number): Change =>
  (profile) => {
    for (const name of ['byok_openai', 'byok_custom']) {
      profile.attributes?.push({
        name,
        multivalued: true,
        permissions: { view: ['admin'], edit: ['admin'] },
        validations: { length: { max } },
      });
    }
  };

describe('the profile check', () => {
  it.each<[string, string, ProfileUse, Change, string[]]>([
    ['accepts the shipped main realm', MAIN, mainRealm, noChange, []],
    ['accepts the shipped vault realm', VAULT, vaultRealm, noChange, []],
    [
      'refuses a tier that users can edit',
      MAIN,
      mainRealm,
      permit('subscription_tier', ['admin', 'user'], ['admin', 'user']),
      ['error'],
    ],
    [
      'warns of a tier that no admin can edit',
      MAIN,
      mainRealm,
      permit('subscription_tier', ['admin'], []),
      ['warning'],
    ],
    [
      'refuses an undeclared tier if users can write undeclared attributes',
      MAIN,
      mainRealm,
      drop('subscription_tier', policy('ENABLED')),
      ['error'],
    ],
    ['warns of an undeclared tier if they cannot', MAIN, mainRealm, drop('subscription_tier'), ['warning']],
    [
      'refuses organization_admin that users can edit',
      MAIN,
      mainRealm,
      permit('organization_admin', ['admin'], ['user']),
      ['error'],
    ],
    [
      'refuses an undeclared organization_admin under ENABLED',
      MAIN,
      mainRealm,
      drop('organization_admin', policy('ENABLED')),
      ['error'],
    ],
    [
      'refuses key attributes that users can see',
      MAIN,
      mainRealm,
      permit('byok_openai', ['admin', 'user'], ['admin']),
      ['error'],
    ],
    [
      'refuses key attributes that users can edit',
      VAULT,
      vaultRealm,
      permit('byok_openai', ['admin'], ['user']),
      ['error'],
    ],
    ['refuses ENABLED in a realm with keys', VAULT, vaultRealm, policy('ENABLED'), ['error']],
    ['refuses ADMIN_VIEW in a realm with keys', VAULT, vaultRealm, policy('ADMIN_VIEW'), ['error']],
    ['refuses a vault that drops keys', VAULT, vaultRealm, policy('DISABLED'), ['error']],
    ['accepts ADMIN_EDIT in the one-realm layout', MAIN, oneRealm, policy('ADMIN_EDIT'), []],
    ['refuses the one-realm layout if the profile cannot store keys', MAIN, oneRealm, noChange, ['error']],
    ['accepts declared key attributes that are long enough', MAIN, oneRealm, declareKeys(2048), []],
    ['refuses declared key attributes that are too short', MAIN, oneRealm, declareKeys(2047), ['error']],
  ])('%s', (_name, file, use, change, expected) => {
    expect(levels(file, use, change)).toEqual(expected);
  });
});
