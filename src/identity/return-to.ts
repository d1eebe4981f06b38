/**
 * C0 control characters and DEL, raw or percent-encoded, and backslashes. Browsers drop control characters and
 * read a backslash as a slash, so `/\t/x` becomes `//x`.
 */
// eslint-disable-next-line no-control-regex -- the pattern matches control characters on purpose
const UNSAFE_CHARACTERS = /[\u0000-\u001f\u007f\\]|%[01][0-9a-f]|%7f|%5c/i;
const MAX_LENGTH = 1_024;

/**
 * Returns the address to open after the sign-in: absolute, and always of the app's own origin.
 * @param requested address from the request. Any address that is not clearly of this origin becomes the home page.
 */
export function safeReturnTo(requested: unknown, publicUrl: string): string {
  const home = `${publicUrl}/`;
  if (typeof requested !== 'string' || requested.length > MAX_LENGTH || UNSAFE_CHARACTERS.test(requested))
    return home;
  if (!URL.canParse(requested, home)) return home;
  const url = new URL(requested, home);
  const isSameOrigin = url.origin === new URL(home).origin && url.username === '' && url.password === '';
  // With a path of `//x` the absolute address is safe, but the path alone would name another host.
  return isSameOrigin && !url.pathname.startsWith('//') ? url.href : home;
}
