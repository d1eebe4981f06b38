import type { AuthProgress, UnansweredPrompt } from './authentication.ts';
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

/** Why an authentication failed and what to do, for users. It contains no text of the server. */
export function createAuthFailureMessage(config: SshConfig, progress: AuthProgress): string {
  const { accepted, unanswered } = progress;
  if (unanswered === 'new_password') return PASSWORD_EXPIRED;
  const [first] = accepted;
  if (first !== undefined) {
    const factor = first === 'publickey' ? 'key' : 'password';
    return `The ${factor} was accepted; ${describeSecondFactor(config, progress)}`;
  }
  if (unanswered !== null) return `The server does not accept the password alone: ${PROMPTS[unanswered]}`;
  return config.auth_method === 'password'
    ? 'The server refused the user name and password, or allows no passwords.'
    : "The server refused the key for this user: add its public key to the account's ~/.ssh/authorized_keys.";
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
