import type { Environment } from '../config.ts';
import { SETTINGS } from '../settings.ts';
import { signInWithForms } from './browserless-sign-in.ts';
import { dataDirOf } from './quickstart/data-dir.ts';
import { refuseDeployment, settingOf } from './settings.ts';
import { getStackFile } from './quickstart/stack-file.ts';
import { StartError } from './start-error.ts';

export interface DemoSession {
  appUrl: string;
  cookieName: string;
  session: string;
}

/** Every demo user's password; `keycloak/demo.json` says so. */
const DEMO_PASSWORD = 'demo';

/**
 * Signs a demo user in to the running stack through Keycloak's forms. There is no other way in: it works
 * because that password is known, and the users exist in local mode only.
 * @throws StartError when nothing runs, when this is a deployment, or when Keycloak refuses.
 */
export async function demoSession(
  environment: Environment,
  cwd: string,
  username: string,
): Promise<DemoSession> {
  refuseDeployment(environment, 'session');
  const stack = getStackFile(dataDirOf(environment, cwd));
  const cookieName = settingOf(environment, 'SESSION_COOKIE_NAME') ?? SETTINGS.SESSION_COOKIE_NAME.fallback;
  try {
    const session = await signInWithForms({
      appUrl: stack.app_url,
      keycloakUrl: stack.keycloak_url,
      username,
      password: DEMO_PASSWORD,
      cookieName,
    });
    return { appUrl: stack.app_url, cookieName, session };
  } catch (error) {
    if (error instanceof StartError) throw error;
    throw new StartError(`${stack.app_url} does not answer. Is it still running? (\`npm start\`)`);
  }
}
