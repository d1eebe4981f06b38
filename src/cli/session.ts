import { isIP } from 'node:net';
import { Agent, buildConnector, fetch, type Dispatcher, type Response } from 'undici';
import { SESSION_COOKIE_NAMES, type Environment } from '../config/config.ts';
import { SETTINGS } from '../config/settings.ts';
import { signInWithForms } from './form-sign-in.ts';
import { resolveDataDir } from '../dev/quickstart/data-dir.ts';
import { assertLocalMode, readSetting } from './settings.ts';
import { toLoopbackUrl } from '../dev/quickstart/ports.ts';
import { getStackFile, type StackFile } from '../dev/quickstart/stack-file.ts';
import { StartError } from '../lib/errors.ts';
import { readDemo } from '../lib/keycloak/demo-users.ts';

export interface DemoSession {
  appUrl: string;
  cookieName: string;
  session: string;
  /** Agent for requests that send the session cookie. */
  dispatcher: Dispatcher;
}

/** Password of every demo user, see `keycloak/demo.json`. */
const DEMO_PASSWORD = 'demo';

/**
 * Signs a demo user in to the running stack through Keycloak's forms, with the public demo password. It bypasses no
 * check; demo users exist in local mode only.
 * @param command that needs the session, for errors.
 * @throws StartError if no stack runs, in a deployment, or if Keycloak refuses the sign-in.
 */
export async function createDemoSession(
  environment: Environment,
  cwd: string,
  username: string,
  command = 'session',
): Promise<DemoSession> {
  assertLocalMode(environment, command);
  const stack = getStackFile(resolveDataDir(environment, cwd));
  const cookieName = readSetting(environment, 'SESSION_COOKIE_NAME') ?? SESSION_COOKIE_NAMES.local;
  const dispatcher = createPinnedAgent(toPinnedAddresses(stack, environment));
  try {
    const session = await signInWithForms({
      appUrl: stack.app_url,
      keycloakUrl: stack.keycloak_url,
      username,
      password: DEMO_PASSWORD,
      cookieName,
      dispatcher,
    });
    return { appUrl: stack.app_url, cookieName, session, dispatcher };
  } catch (error) {
    if (error instanceof StartError) throw await addDemoUsers(error, username);
    throw new StartError(`${stack.app_url} does not respond. Start it with \`npm start\`.`);
  }
}

/** Names the users that the password is for, where the user is none of them. */
async function addDemoUsers(error: StartError, username: string): Promise<StartError> {
  const { users } = await readDemo();
  const names = users.map((user) => user.username);
  if (names.includes(username)) return error;
  return new StartError(`${error.message} The demo users are ${names.join(', ')}.`, { cause: error });
}

/** Sends a request to the app as the signed-in user. @param body sent as JSON. */
export function sendAsUser(
  { appUrl, cookieName, session, dispatcher }: DemoSession,
  method: string,
  path: string,
  body?: unknown,
): Promise<Response> {
  return fetch(`${appUrl}${path}`, {
    method,
    dispatcher,
    headers: {
      cookie: `${cookieName}=${session}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

/** Maps the stack's `localhost` origins to the addresses that its servers listen on. */
function toPinnedAddresses(stack: StackFile, environment: Environment): Map<string, string> {
  const pins = new Map<string, string>();
  if (stack.admin_user !== null)
    pins.set(new URL(stack.keycloak_url).origin, new URL(toLoopbackUrl(stack.keycloak_url)).hostname);
  const host = readSetting(environment, 'HOST') ?? SETTINGS.HOST.fallback;
  if (isIP(host) !== 0) pins.set(new URL(stack.app_url).origin, host);
  return pins;
}

/**
 * Creates an agent for requests with secrets of this installation. It connects to a fixed address per origin instead
 * of resolving the host name: `localhost` can resolve to `[::1]`, where another program can listen on a port that
 * this installation uses on 127.0.0.1.
 * @param pins origin (`http://localhost:3000`) -> address to connect to. Other origins are resolved as usual.
 */
function createPinnedAgent(pins: ReadonlyMap<string, string>): Agent {
  const connect = buildConnector({});
  return new Agent({
    connect: (options, callback) => {
      const { origin } = new URL(`${options.protocol}//${options.hostname}:${options.port}`);
      connect({ ...options, hostname: pins.get(origin) ?? options.hostname }, callback);
    },
  });
}
