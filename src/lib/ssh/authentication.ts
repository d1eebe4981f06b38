import type {
  AnyAuthMethod,
  ConnectConfig,
  KeyboardInteractiveAuthMethod,
  NextAuthHandler,
  ParsedKey,
  Prompt,
} from 'ssh2';
import type { SshConfig } from './config.ts';

/** The methods of SSH that this client has (RFC 4252, RFC 4256). */
export type SshAuthMethod = 'publickey' | 'password' | 'keyboard-interactive';

/** A question of the server that is not answered. */
export type UnansweredPrompt = 'password' | 'new_password' | 'code' | 'other';

/** What a server has answered to an authentication so far. */
export interface AuthProgress {
  /** Accepted methods. The server wants another one, or the authentication would have ended. */
  accepted: SshAuthMethod[];
  /** Methods that were refused after the last accepted one. */
  refused: SshAuthMethod[];
  /** The methods that the server would take next, as it names them; null before its first answer. */
  offered: readonly string[] | null;
  /** The server takes no kind of signature that the key can make, so that the key was not sent. */
  isKeySkipped: boolean;
  unanswered: UnansweredPrompt | null;
  /** The last method that was sent has no answer yet. */
  isPending: boolean;
  /** What the server said in a banner. */
  notice: AccountNotice | null;
}

/** What PAM and OpenSSH say of an account before they close the connection. */
export type AccountNotice = 'account_expired' | 'password_expired' | 'account_locked' | 'logins_disabled';

export interface Authentication {
  /** For ssh2: it chooses the next method. */
  readonly handler: NonNullable<ConnectConfig['authHandler']>;
  readonly progress: AuthProgress;
  /** Reads a banner of the server. Its text is not kept. */
  readBanner(text: string): void;
}

export interface AuthenticationOptions {
  /** @throws SshError when the key cannot be used. */
  readKey: () => Promise<ParsedKey>;
  /** Called when the authentication cannot go on: with the error of `readKey`, or when a prompt is not answered. */
  onStop: (error?: unknown) => void;
}

/** What stands first in {@link SshConfig}'s `auth_method`, and what a server may want in addition. */
const METHODS: Record<SshConfig['auth_method'], { first: SshAuthMethod[]; further: SshAuthMethod[] }> = {
  key: { first: ['publickey'], further: ['password', 'keyboard-interactive'] },
  password: { first: ['password', 'keyboard-interactive'], further: ['publickey'] },
};

/** A password is no answer to these, and each wrong answer counts against the account. */
const CODE_PROMPT =
  /code|otp|token|\bpin\b|one[- ]time|\bduo\b|yubikey|factor|verification|response|challenge|authenticator|2fa|mfa|passphrase|einmal|usage unique/i;
/** In the languages of Linux-PAM and FreeBSD that are used most. */
const PASSWORD_PROMPT =
  /password|passwort|kennwort|mot de passe|contraseña|senha|wachtwoord|hasło|heslo|lösenord|parola|пароль|密码|密碼|パスワード|암호/i;
const NEW_PASSWORD_PROMPT = /\b(?:new|current|old|retype|change) (?:unix )?password/i;
/** Account and host, whose names say nothing about what a prompt asks for ("Password for me@factory.example.org:"). */
const ACCOUNT_IN_PROMPT = /[\w.$+\\-]{1,64}@[\w.-]+/g;

/** Of the modules of Linux-PAM and of OpenSSH. */
const NOTICES: readonly (readonly [AccountNotice, RegExp])[] = [
  ['account_expired', /account (?:has|is) expired/i],
  ['password_expired', /password has expired|required to change your password/i],
  ['account_locked', /account (?:is|has been) (?:temporarily )?(?:locked|disabled)/i],
  [
    'logins_disabled',
    /not permitted to log in|logins are (?:currently )?disabled|system is (?:booting up|going down)/i,
  ],
];
const MAX_BANNER_LENGTH = 4_096;

/**
 * The authentication of one connection. Only the methods of `auth_method` are tried until the server has accepted one;
 * when it then wants another one (RFC 4252, 5.1, "partial success"), the other stored secret is used too.
 */
export function createAuthentication(
  config: Pick<SshConfig, 'username' | 'auth_method' | 'password' | 'private_key'>,
  { readKey, onStop }: AuthenticationOptions,
): Authentication {
  const { username, auth_method, password } = config;
  const progress: AuthProgress = {
    ...{ accepted: [], refused: [], offered: null, isKeySkipped: false, unanswered: null },
    ...{ isPending: false, notice: null },
  };
  const tried = new Set<SshAuthMethod>();
  let last: SshAuthMethod | undefined;

  /** @param offered null or the same list as in the previous call when ssh2 did not send the method. */
  function readAnswer(offered: readonly string[] | null, isPartial: boolean | null): void {
    progress.isPending = false;
    if (last === undefined) return;
    if (offered === progress.offered) progress.isKeySkipped ||= last === 'publickey';
    else if (isPartial === true) {
      progress.accepted.push(last);
      progress.refused = [];
      tried.clear();
    } else progress.refused.push(last);
    progress.offered = offered;
  }

  function findNext(): SshAuthMethod | undefined {
    const { first, further } = METHODS[auth_method];
    const { accepted, offered } = progress;
    return (accepted.length === 0 ? first : [...further, ...first]).find(
      (method) =>
        !tried.has(method) &&
        !accepted.includes(method) &&
        offered?.includes(method) !== false &&
        isStored(method),
    );
  }

  function isStored(method: SshAuthMethod): boolean {
    if (method === 'publickey') return config.private_key !== null;
    // A server may ask nothing at all by keyboard-interactive.
    return method === 'keyboard-interactive' || password !== null;
  }

  /** Answers a single hidden prompt that may ask for the password, once. Other prompts end the authentication. */
  function createKeyboardMethod(): KeyboardInteractiveAuthMethod {
    let hasAnswered = false;
    return {
      type: 'keyboard-interactive',
      username,
      prompt(_name, _instructions, _language, prompts, finish) {
        // Who accepted the password asks for something else.
        const isFurther = progress.accepted.length > 0;
        const kind = progress.accepted.includes('password') ? 'code' : classifyPrompts(prompts, isFurther);
        progress.isPending = false;
        if (kind === 'password' && password !== null && !hasAnswered) {
          hasAnswered = true;
          progress.isPending = true;
          finish([password]);
          return;
        }
        // A second request for the password is its refusal.
        if (kind === 'password' && hasAnswered) progress.refused.push('keyboard-interactive');
        else progress.unanswered = kind;
        onStop();
      },
    };
  }

  async function send(method: SshAuthMethod, next: NextAuthHandler): Promise<void> {
    const secret = await toMethod(method);
    progress.isPending = true;
    next(secret);
  }

  async function toMethod(method: SshAuthMethod): Promise<AnyAuthMethod> {
    if (method === 'publickey') return { type: method, username, key: await readKey() };
    return method === 'password'
      ? { type: method, username, password: password ?? '' }
      : createKeyboardMethod();
  }

  return {
    progress,
    readBanner(text) {
      const [found] = NOTICES.find(([, pattern]) => pattern.test(text.slice(0, MAX_BANNER_LENGTH))) ?? [];
      // That of PAM follows the banner of sshd_config.
      progress.notice = found ?? progress.notice;
    },
    handler(offered: string[] | null, isPartial, next) {
      readAnswer(offered, isPartial);
      last = findNext();
      if (last === undefined) {
        // ssh2 also takes false, for "none".
        next(false as never);
        return;
      }
      tried.add(last);
      send(last, next).catch(onStop);
    },
  };
}

/** @param isFurther after another factor, where a prompt that does not name a password is one for a code. */
function classifyPrompts(prompts: readonly Prompt[], isFurther: boolean): UnansweredPrompt {
  const [first] = prompts;
  if (first === undefined || prompts.length > 1) return 'other';
  const prompt = first.prompt.replaceAll(ACCOUNT_IN_PROMPT, '');
  if (NEW_PASSWORD_PROMPT.test(prompt)) return 'new_password';
  if (CODE_PROMPT.test(prompt) || (isFurther && !PASSWORD_PROMPT.test(prompt))) return 'code';
  return first.echo === true ? 'other' : 'password';
}
