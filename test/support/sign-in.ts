import { fetch, type Response } from 'undici';
import type { TestUser } from './stack.ts';

/** Signs a user in through Keycloak's real pages, as a browser without scripts would; answers the session cookie's value. */
export async function signIn(appUrl: string, user: Pick<TestUser, 'username' | 'password'>): Promise<string> {
  const jar = new Map<string, string>();
  let response = await follow(`${appUrl}/auth/login?return_to=/`, jar);
  for (let page = 0; page < 3 && response.status === 200; page += 1) {
    const html = await response.text();
    const action = /<form[^>]*action="([^"]+)"/.exec(html)?.[1]?.replaceAll('&amp;', '&');
    if (action === undefined) break;
    response = await follow(
      action,
      jar,
      new URLSearchParams({ username: user.username, password: user.password, credentialId: '' }),
      appUrl,
    );
    if (jar.has('session')) break;
  }
  const session = jar.get('session');
  if (session === undefined)
    throw new Error(
      `no session after the sign-in: ${response.status} ${(await response.text()).slice(0, 500)}`,
    );
  return session;
}

async function follow(
  start: string,
  jar: Map<string, string>,
  form?: URLSearchParams,
  stopAt?: string,
): Promise<Response> {
  let url = start;
  let body = form;
  for (let hop = 0; hop < 10; hop += 1) {
    const response: Response = await fetch(url, {
      redirect: 'manual',
      method: body === undefined ? 'GET' : 'POST',
      ...(body === undefined ? {} : { body }),
      headers: {
        cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; '),
        accept: 'text/html',
      },
    });
    for (const line of response.headers.getSetCookie()) {
      const [pair = ''] = line.split(';');
      const at = pair.indexOf('=');
      jar.set(pair.slice(0, at), pair.slice(at + 1));
    }
    const location = response.headers.get('location');
    if (location === null || (stopAt !== undefined && jar.has('session'))) return response;
    url = new URL(location, url).href;
    body = undefined;
  }
  throw new Error('too many redirects');
}
