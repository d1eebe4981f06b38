/** C0 controls and DEL, raw or percent-encoded, and backslashes: browsers drop or turn them, so `/\t/x` is `//x`. */
// eslint-disable-next-line no-control-regex -- they are what is looked for
const UNSAFE_CHARACTERS = /[\u0000-\u001f\u007f\\]|%[01][0-9a-f]|%7f|%5c/i;
const MAX_LENGTH = 1_024;

/**
 * Where to go after signing in: an absolute address of our own origin.
 * @param requested what the request asked for; anything that is not plainly ours becomes the start page.
 */
export function safeReturnTo(requested: unknown, publicUrl: string): string {
  const home = `${publicUrl}/`;
  if (typeof requested !== 'string' || requested.length > MAX_LENGTH || UNSAFE_CHARACTERS.test(requested))
    return home;
  if (!URL.canParse(requested, home)) return home;
  const url = new URL(requested, home);
  const isOurs = url.origin === new URL(home).origin && url.username === '' && url.password === '';
  // A path of `//x` is ours as an absolute address, but not for whoever takes the path alone.
  return isOurs && !url.pathname.startsWith('//') ? url.href : home;
}
