/** `export OPENAI_API_KEY=`, and the same in PowerShell. What follows is long: a key can end in `=`. */
const ASSIGNMENT = /^(?:export\s+|set\s+|\$env:)?[A-Za-z_]\w*\s*=\s*(?=[^=\s].{7})/;
/** A member of YAML or JSON. */
const MEMBER = /^(?:[A-Z][A-Z0-9_]*|"\w+")\s*:\s*(?=\S.{7})/;
const HEADER = /^(?:authorization\s*:\s*|x-api-key\s*:\s*)/i;
const SCHEME = /^bearer\s+/i;
const QUOTES: readonly (readonly [string, string])[] = [
  ['"', '"'],
  ["'", "'"],
  ['`', '`'],
  ['“', '”'],
  ['‘', '’'],
];

/**
 * Takes the key out of what users paste: lines of shells, `.env` files and headers, with quotes, spaces and line breaks
 * around or within it (a copied key can be wrapped).
 */
export function cleanPastedKey(text: string): string {
  let key = text.trim();
  for (;;) {
    const before = key;
    key = unquote(
      key
        .replace(HEADER, '')
        .replace(SCHEME, '')
        .replace(ASSIGNMENT, '')
        .replace(MEMBER, '')
        .replace(/[;,]$/, '')
        .trim(),
    );
    if (key === before) return key.replaceAll(/\s+/g, '');
  }
}

function unquote(text: string): string {
  const pair = QUOTES.find(
    ([open, close]) => text.length > 1 && text.startsWith(open) && text.endsWith(close),
  );
  return pair === undefined ? text : text.slice(1, -1).trim();
}
