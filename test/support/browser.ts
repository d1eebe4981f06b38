import { request } from 'undici';

export interface BrowserResponse {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  /** The absolute address of a redirect. */
  location: string | undefined;
  text: string;
  json(): unknown;
}

/** A minimal browser for signing in: cookies, forms, and redirects that are followed one at a time. */
export interface Browser {
  get(url: string, headers?: Record<string, string>): Promise<BrowserResponse>;
  post(url: string, form: Record<string, string>, headers?: Record<string, string>): Promise<BrowserResponse>;
  /** The Cookie header for an address. */
  cookieHeader(url: string): string;
  cookie(name: string): string | undefined;
  setCookie(url: string, name: string, value: string): void;
  /** A second browser with the same cookies. */
  clone(): Browser;
}

interface Cookie {
  host: string;
  path: string;
  name: string;
  value: string;
}

export function createBrowser(initial: readonly Cookie[] = []): Browser {
  let jar: Cookie[] = [...initial];

  function storeCookie(url: URL, line: string): void {
    const [pair = '', ...attributes] = line.split(';').map((part) => part.trim());
    const at = pair.indexOf('=');
    const attribute = (name: string) =>
      attributes.find((text) => text.toLowerCase().startsWith(`${name}=`))?.slice(name.length + 1);
    const name = pair.slice(0, at);
    const path = attribute('path') ?? '/';
    jar = jar.filter(
      (cookie) => cookie.host !== url.hostname || cookie.path !== path || cookie.name !== name,
    );
    const expires = attribute('expires');
    // RFC 6265bis, section 4.1.3.2.
    const isOfThisHost = attributes.some((text) => /^secure$/i.test(text)) && attribute('path') === '/';
    if (name.startsWith('__Host-') && !(isOfThisHost && attribute('domain') === undefined)) return;
    const isExpired =
      attribute('max-age') === '0' || (expires !== undefined && Date.parse(expires) <= Date.now());
    if (!isExpired) jar.push({ host: url.hostname, path, name, value: pair.slice(at + 1) });
  }

  // Cookies are shared between ports, as in real browsers.
  const cookieHeader = (text: string) => {
    const url = new URL(text);
    return jar
      .filter((cookie) => cookie.host === url.hostname && url.pathname.startsWith(cookie.path))
      .map((cookie) => `${cookie.name}=${cookie.value}`)
      .join('; ');
  };

  async function send(
    method: 'GET' | 'POST',
    address: string,
    extraHeaders: Record<string, string>,
    body?: string,
  ): Promise<BrowserResponse> {
    const cookies = cookieHeader(address);
    const {
      statusCode,
      headers,
      body: stream,
    } = await request(address, {
      method,
      headers: { accept: 'text/html', ...(cookies === '' ? {} : { cookie: cookies }), ...extraHeaders },
      ...(body === undefined ? {} : { body }),
    });
    const text = await stream.text();
    for (const line of [headers['set-cookie'] ?? []].flat()) storeCookie(new URL(address), line);
    const location = headers['location'];
    return {
      status: statusCode,
      headers,
      location: typeof location === 'string' ? new URL(location, address).href : undefined,
      text,
      json: () => JSON.parse(text) as unknown,
    };
  }

  return {
    get: (url, headers = {}) => send('GET', url, headers),
    post: (url, form, headers = {}) =>
      send(
        'POST',
        url,
        { 'content-type': 'application/x-www-form-urlencoded', ...headers },
        new URLSearchParams(form).toString(),
      ),
    cookieHeader,
    cookie: (name) => jar.find((cookie) => cookie.name === name)?.value,
    setCookie(url, name, value) {
      jar.push({ host: new URL(url).hostname, path: '/', name, value });
    },
    clone: () => createBrowser(jar),
  };
}

/** The address to which Keycloak's login form on a page is sent. */
function formAction(page: BrowserResponse): string {
  const action = /<form[^>]*id="kc-form-login"[^>]*action="([^"]+)"/s.exec(page.text)?.[1];
  if (action === undefined) throw new Error(`no login form on the page (status ${String(page.status)})`);
  return action.replaceAll('&amp;', '&');
}

/**
 * Signs in through Keycloak's pages from `/auth/login` on, up to the callback.
 * @returns the callback's address with its code, which was not yet requested.
 */
export async function signInUpToCallback(
  browser: Browser,
  loginUrl: string,
  user: { username: string; password: string },
): Promise<string> {
  const start = await browser.get(loginUrl);
  if (start.location === undefined) throw new Error(`no redirect to Keycloak: ${start.text}`);
  const location = await submitLoginPages(browser, start.location, user);
  if (!location.includes('/auth/callback'))
    throw new Error(`Keycloak redirected the browser to another address: ${location}`);
  return location;
}

/** Submits Keycloak's login pages of an authorization request. @returns the address of the final redirect. */
export async function submitLoginPages(
  browser: Browser,
  authorizationUrl: string,
  user: { username: string; password: string },
): Promise<string> {
  let page = await browser.get(authorizationUrl);
  // With an organization in the realm, the password is on a second page. Keycloak's protection against guessing refuses a
  // sign-in while it processes another one of the same user, and shows the form again.
  for (let pages = 0; page.location === undefined && pages < 3; pages += 1) {
    page = await browser.post(formAction(page), { username: user.username, password: user.password });
  }
  if (page.location === undefined)
    throw new Error(`Keycloak did not redirect the browser back: ${String(page.status)}`);
  return page.location;
}

/** Signs in; the browser then has the session cookie. @returns the callback's response. */
export async function signIn(
  browser: Browser,
  publicUrl: string,
  user: { username: string; password: string },
): Promise<BrowserResponse> {
  return browser.get(await signInUpToCallback(browser, `${publicUrl}/auth/login`, user));
}
