export type HomeState =
  | { kind: 'signed_out' }
  | {
      kind: 'signed_in';
      user: { username: string; tier: string };
      /** Sentence that names the key which would serve a chat request now. */
      routeSentence: string;
    }
  | { kind: 'failed'; error: { detail: string } };

export interface HomeView {
  publicUrl: string;
  cookieName: string;
  /** True when the demo provider and demo users exist, so that the example works unchanged. */
  isLocal: boolean;
  state: HomeState;
}

/** The page: sign-in, the user, the key that would serve a request, and an example command. */
export function renderHomePage(view: HomeView): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ops Center</title>
<link rel="stylesheet" href="/home.css">
</head>
<body>
<main>
<h1>Ops Center</h1>
<p>Bring your own LLM keys. They are kept encrypted in Keycloak, and every response names the key that paid.</p>
${renderContent(view)}
</main>
</body>
</html>
`;
}

const SIGN_OUT =
  '<form method="post" action="/auth/logout"><button class="button" type="submit">Sign out</button></form>';

function renderContent({ state, ...view }: HomeView): string {
  switch (state.kind) {
    case 'signed_out':
      return '<p><a class="button" href="/auth/login?return_to=/">Sign in</a></p>';
    case 'failed':
      return `<p role="alert">${escapeHtml(state.error.detail)}</p>\n<p><a class="button" href="/">Try again</a></p>\n${SIGN_OUT}`;
    case 'signed_in':
      return `<dl>
<dt>Signed in as</dt><dd>${escapeHtml(state.user.username)}</dd>
<dt>Tier</dt><dd>${escapeHtml(state.user.tier)}</dd>
</dl>
<p>${escapeHtml(state.routeSentence)}</p>
<h2 id="add">Add a key</h2>
<p>${escapeHtml(exampleHint(view))}</p>
<pre tabindex="0" role="region" aria-labelledby="add"><code>${escapeHtml(exampleCommand(view, state.user.username))}</code></pre>
${SIGN_OUT}`;
  }
}

type PageSettings = Omit<HomeView, 'state'>;

function exampleHint({ isLocal, cookieName }: PageSettings): string {
  return isLocal
    ? 'In a terminal, in the directory where this server was started:'
    : `In a terminal; SESSION is the value of your cookie ${cookieName}:`;
}

/** Words that a shell needs no quotes for. */
const PLAIN_WORD = /^[A-Za-z0-9][A-Za-z0-9._@-]*$/;

function exampleCommand({ publicUrl, cookieName, isLocal }: PageSettings, username: string): string {
  const demoUser = PLAIN_WORD.test(username) ? username : 'starter';
  const body = isLocal
    ? { provider: 'demo', key: 'demo-my-first-key', label: 'My first key' }
    : { provider: 'openai', key: 'sk-...', label: 'My first key' };
  return [
    ...(isLocal ? [`SESSION=$(npm run -s ops -- session ${demoUser})`] : []),
    `curl -X POST ${publicUrl}/api/v1/byok/keys/add \\`,
    '  -H "Content-Type: application/json" \\',
    `  -H "Cookie: ${cookieName}=$SESSION" \\`,
    `  -d '{"provider": "${body.provider}", "key": "${body.key}", "label": "${body.label}"}'`,
  ].join('\n');
}

/** A separate file, so that the content security policy needs no inline styles. */
export const HOME_CSS = `:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.5; }
body { margin: 0; background: Canvas; color: CanvasText; }
main { max-width: 44rem; margin: 0 auto; padding: 2rem 1rem; overflow-wrap: anywhere; }
h1 { margin-top: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1rem; margin: 1.5rem 0; }
dd { margin: 0; font-weight: 600; }
pre { overflow-x: auto; margin: 0 0 1.5rem; padding: 1rem; border: 1px solid color-mix(in srgb, currentColor 30%, transparent); border-radius: 0.5rem; }
.button { display: inline-block; padding: 0.5rem 1rem; border: 1px solid currentColor; border-radius: 0.5rem; background: none; color: inherit; font: inherit; text-decoration: none; cursor: pointer; }
:focus-visible { outline: 3px solid #4c8dff; outline-offset: 2px; }
`;

function escapeHtml(text: string): string {
  const entities: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? '');
}
