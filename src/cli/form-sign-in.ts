import { fetch, type Dispatcher, type Response } from 'undici';
import { StartError } from '../lib/errors.ts';

export interface FormSignInOptions {
  appUrl: string;
  /** Keycloak's address. The password is sent to this origin only. */
  keycloakUrl: string;
  username: string;
  password: string;
  cookieName: string;
  /** Default: connects to the address that each host name resolves to. */
  dispatcher?: Dispatcher;
}

/** Identity-first sign-in takes two pages. With more, Keycloak requires something else. */
const MAX_PAGES = 3;
const MAX_REDIRECTS = 10;
/** Error message on a Keycloak page: beside a field, or above the form. */
const ERROR_MESSAGE = /(?:id="input-error-[^"]*"|class="[^"]*kc-feedback-text[^"]*")[^>]*>\s*([^<\s][^<]*)/;

/**
 * Signs a user in like a browser without scripts: through the app's `/auth/login`, Keycloak's pages and
 * `/auth/callback`.
 * @returns value of the session cookie.
 * @throws StartError if Keycloak refuses the user, or shows a page that is not a sign-in page.
 */
export async function signInWithForms(options: FormSignInOptions): Promise<string> {
  const browser = createBrowser(options.dispatcher);
  let page = await browser.open(`${options.appUrl}/auth/login?return_to=/`);
  for (let count = 0; count < MAX_PAGES; count += 1) {
    const form = readForm(page);
    if (new URL(form.action).origin !== new URL(options.keycloakUrl).origin) {
      throw new StartError(`The sign-in page is not Keycloak's (${options.keycloakUrl}).`);
    }
    const answers = { username: options.username, password: options.password };
    page = await browser.submit(
      form.action,
      Object.fromEntries(Object.entries(answers).filter(([name]) => form.fields.has(name))),
    );
    const session = browser.cookie(options.appUrl, options.cookieName);
    if (session !== undefined) return session;
  }
  throw new StartError(`Keycloak did not finish the sign-in: ${readTitle(page.html)}`);
}

interface Page {
  url: string;
  html: string;
}

/**
 * Reads the form of a sign-in page.
 * @throws StartError with Keycloak's message if the page shows an error or is not a sign-in page.
 */
function readForm(page: Page): { action: string; fields: Set<string> } {
  const message = ERROR_MESSAGE.exec(page.html)?.[1]?.trim();
  if (message !== undefined) throw new StartError(`Keycloak refused the sign-in: ${unescapeHtml(message)}`);
  const action = /<form\b[^>]*\baction="([^"]+)"/.exec(page.html)?.[1];
  const fields = new Set(
    [...page.html.matchAll(/<input\b[^>]*\bname="([^"]+)"/g)].map((match) => match[1] ?? ''),
  );
  if (action === undefined || !(fields.has('username') || fields.has('password'))) {
    throw new StartError(
      `This is not a sign-in page: ${readTitle(page.html)} (${new URL(page.url).pathname})`,
    );
  }
  return { action: new URL(unescapeHtml(action), page.url).href, fields };
}

function readTitle(html: string): string {
  return unescapeHtml(/<title>([^<]*)<\/title>/.exec(html)?.[1]?.trim() ?? html.slice(0, 200));
}

function unescapeHtml(html: string): string {
  return html.replaceAll('&#39;', "'").replaceAll('&quot;', '"').replaceAll('&amp;', '&');
}

/** Follows redirects and keeps cookies per origin: the app's cookies are not sent to Keycloak. */
function createBrowser(dispatcher: Dispatcher | undefined) {
  const jars = new Map<string, Map<string, string>>();
  const getJar = (url: string) => {
    const { origin } = new URL(url);
    const jar = jars.get(origin) ?? new Map<string, string>();
    jars.set(origin, jar);
    return jar;
  };

  async function follow(start: string, form?: Record<string, string>): Promise<Page> {
    let url = start;
    let body = form && new URLSearchParams(form);
    for (let count = 0; count < MAX_REDIRECTS; count += 1) {
      const jar = getJar(url);
      const response = await fetch(url, {
        redirect: 'manual',
        ...(dispatcher && { dispatcher }),
        headers: { accept: 'text/html', cookie: [...jar].map((pair) => pair.join('=')).join('; ') },
        ...(body === undefined ? {} : { method: 'POST', body }),
      });
      storeCookies(response, jar);
      const location = response.headers.get('location');
      if (location === null) return { url, html: await response.text() };
      await response.body?.cancel();
      url = new URL(location, url).href;
      body = undefined;
    }
    throw new StartError('The sign-in has too many redirects.');
  }

  return {
    open: (url: string) => follow(url),
    submit: (url: string, form: Record<string, string>) => follow(url, form),
    cookie: (url: string, name: string) => getJar(url).get(name),
  };
}

function storeCookies(response: Response, jar: Map<string, string>): void {
  for (const line of response.headers.getSetCookie()) {
    const [pair = ''] = line.split(';');
    const at = pair.indexOf('=');
    const [name, value] = [pair.slice(0, at), pair.slice(at + 1)];
    if (value === '' || /max-age=0/i.test(line)) jar.delete(name);
    else jar.set(name, value);
  }
}
