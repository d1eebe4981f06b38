/** C0 controls and DEL, raw or percent-encoded, and backslashes: browsers drop or turn them, so `/\t/x` is `//x`. */
// eslint-disable-next-line no-control-regex -- they are what is looked for
const TREACHEROUS = /[\u0000-\u001f\u007f\\]|%[01][0-9a-f]|%7f|%5c/i;
const MAX_LENGTH = 1_024;

/**
 * Where to go after signing in: an absolute address of our own origin.
 * @param wanted what the request asked for; anything that is not plainly ours becomes the start page.
 */
export function safeReturnTo(wanted: unknown, publicUrl: string): string {
  const home = `${publicUrl}/`;
  if (typeof wanted !== 'string' || wanted.length > MAX_LENGTH || TREACHEROUS.test(wanted)) return home;
  if (!URL.canParse(wanted, home)) return home;
  const url = new URL(wanted, home);
  const isOurs = url.origin === new URL(home).origin && url.username === '' && url.password === '';
  // A path of `//x` is ours as an absolute address, but not for whoever takes the path alone.
  return isOurs && !url.pathname.startsWith('//') ? url.href : home;
}
