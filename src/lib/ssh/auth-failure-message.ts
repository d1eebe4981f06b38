import type { AccountNotice, AuthProgress, UnansweredPrompt } from './authentication.ts';
import type { SshConfig } from './config.ts';

const PASSWORD_EXPIRED = 'The password has expired. Set a new one on the server, then enter it here.';
const SECOND_FACTOR = 'the server wants a second factor';

/** What the server asked, as a clause, and what to do. */
const PROMPTS: Record<Exclude<UnansweredPrompt, 'new_password'>, string> = {
  password: 'it asks for a password. Store the password of the account as well, in password.',
  code:
    'it asks for a one-time code, which cannot be entered here. Use an account that needs none, e.g. with a Match ' +
    'block in sshd_config.',
  other:
    'it asks a question that cannot be answered here. Use an account that is asked for a password at most, e.g. with a ' +
    'Match block in sshd_config.',
};

const SEE_LOG = "The server's log names the reason (e.g. journalctl -u ssh).";
const ACCOUNT =
  'that AllowUsers, DenyUsers, AllowGroups and DenyGroups in sshd_config admit the account, and that the account is ' +
  'neither locked nor expired';

const NOTICES: Record<AccountNotice, string> = {
  account_expired:
    'The account has expired on the server. Extend it there (chage -E), or use another account.',
  password_expired: PASSWORD_EXPIRED,
  account_locked: 'The account is locked on the server. Unlock it there, or use another account.',
  logins_disabled: 'The server permits no logins at the moment, e.g. because it starts or has /etc/nologin.',
};

const CLOSED =
  'The server closed the connection during the sign-in without a reason. The account may be expired, locked or excluded ' +
  `by PAM, or the server permits fewer attempts (MaxAuthTries). ${SEE_LOG}`;

const KEY_REFUSED =
  'The server refused the key for this user name. Check the user name, and on the server: that ' +
  "the account's ~/.ssh/authorized_keys has the public key, without a from= that excludes this address; that the account " +
  `alone can write to its home, ~/.ssh and that file; ${ACCOUNT}; that PubkeyAcceptedAlgorithms has the type of the ` +
  'key and not certificates or SHA-1 alone.';
const PASSWORD_REFUSED = `The server refused the user name and password. Check both, and on the server: ${ACCOUNT}.`;
const KEY_SKIPPED =
  'The server takes no signatures of RSA keys. Use an Ed25519 or ECDSA key, or add rsa-sha2-256 to ' +
  'PubkeyAcceptedAlgorithms in its sshd_config.';

/** Methods of sign-in that may be named to users (IANA, "SSH Authentication Method Names"). */
const METHOD_NAMES: readonly string[] = [
  ...['publickey', 'password', 'keyboard-interactive', 'hostbased'],
  ...['gssapi-with-mic', 'gssapi-keyex'],
];

/**
 * Why an authentication failed and what to do, for users. It contains no text of the server.
 * @param isDisconnected the server closed the connection without saying why.
 */
export function createAuthFailureMessage(
  config: SshConfig,
  progress: AuthProgress,
  isDisconnected: boolean,
): string {
  const { unanswered, notice, isPending } = progress;
  if (unanswered === 'new_password') return PASSWORD_EXPIRED;
  // A banner may also warn of what is not the case.
  if (isPending && isDisconnected) return notice === null ? CLOSED : NOTICES[notice];
  const factor = describeAccepted(progress);
  if (factor !== undefined) return `${factor}; ${describeSecondFactor(config, progress)}`;
  if (unanswered !== null) return `The server does not accept the password alone: ${PROMPTS[unanswered]}`;
  return describeRefusal(config, progress);
}

/** For a server that does not answer a sign-in, for users. */
export function createAuthTimeoutMessage(progress: AuthProgress, timeoutMs: number): string {
  const factor = describeAccepted(progress);
  const silence = `the server did not finish the sign-in within ${timeoutMs / 1000} s`;
  return factor === undefined
    ? `The key exchange has ended, but ${silence}. It may look up names (UseDNS) or ask a directory that does not answer, ` +
        'or wait for an approval on another device, which is not supported.'
    : `${factor}, but ${silence}. It may wait for an approval on another device, which is not supported: use an account ` +
        'that needs none, e.g. with a Match block in sshd_config.';
}

function describeAccepted({ accepted: [first] }: AuthProgress): string | undefined {
  if (first === undefined) return undefined;
  return `The ${first === 'publickey' ? 'key' : 'password'} was accepted`;
}

function describeRefusal({ auth_method, username }: SshConfig, progress: AuthProgress): string {
  if (progress.isKeySkipped) return KEY_SKIPPED;
  const wrongMethod = describeWrongMethod(auth_method, progress.offered);
  if (wrongMethod !== undefined) return wrongMethod;
  const [refusal, root] =
    auth_method === 'key'
      ? [KEY_REFUSED, 'For root, PermitRootLogin must not be "no".']
      : [
          PASSWORD_REFUSED,
          'For root, PermitRootLogin must be "yes": by default root cannot sign in with a password.',
        ];
  return [refusal, ...(username === 'root' ? [root] : []), SEE_LOG].join(' ');
}

/** For a server that does not take what `auth_method` says, at least not first. */
function describeWrongMethod(
  authMethod: SshConfig['auth_method'],
  offered: AuthProgress['offered'],
): string | undefined {
  if (offered === null) return undefined;
  const names = METHOD_NAMES.filter((name) => offered.includes(name)).join(', ');
  const offer = names === '' ? 'It offers no method that is known here' : `It offers ${names}`;
  const takesPassword = offered.includes('password') || offered.includes('keyboard-interactive');
  const takesKey = offered.includes('publickey');
  if (authMethod === 'key' && !takesKey)
    return `The server takes no key of this account as the first factor. ${offer}. Set ${takesPassword ? 'auth_method to "password", or ' : ''}PubkeyAuthentication and AuthenticationMethods in its sshd_config.`;
  if (authMethod === 'password' && !takesPassword)
    return `The server takes no password of this account as the first factor. ${offer}. Set ${takesKey ? 'auth_method to "key", or ' : ''}PasswordAuthentication and AuthenticationMethods in its sshd_config.`;
  return undefined;
}

function describeSecondFactor(config: SshConfig, progress: AuthProgress): string {
  const { accepted, refused, offered, unanswered } = progress;
  if (unanswered !== null && unanswered !== 'new_password') return `${SECOND_FACTOR}: ${PROMPTS[unanswered]}`;
  if (refused.includes('publickey'))
    return `${SECOND_FACTOR}, and refused the key. Add its public key to the account's ~/.ssh/authorized_keys.`;
  if (refused.length > 0)
    return `${SECOND_FACTOR}, and refused the password. Enter the account's password again.`;
  const isMissing = (method: string) => offered?.includes(method) === true;
  if (isMissing('publickey') && !accepted.includes('publickey') && config.private_key === null)
    return `${SECOND_FACTOR}: a key. Store it as well, in private_key.`;
  if (isMissing('password') && config.password === null) return `${SECOND_FACTOR}: ${PROMPTS.password}`;
  return `${SECOND_FACTOR} of a kind that is not supported here. Use an account that needs none, e.g. with a Match block in sshd_config.`;
}
