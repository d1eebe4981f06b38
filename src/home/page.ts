/** What the page shows of the person who is signed in. */
export interface HomeView {
  publicUrl: string;
  cookieName: string;
  user: { username: string; tier: string } | null;
  /** In words, which key would answer a chat request now. */
  answeredBy: string | null;
  /** True where the demo provider is offered, so that the example works as it stands. */
  isLocal: boolean;
}

/** The one page until the real one comes: sign in, who am I, which key would answer, the next line to try. */
export function homePage(view: HomeView): string {
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
<p>Bring your own LLM keys. They are kept encrypted in Keycloak, and every answer says which key paid.</p>
${view.user === null ? signedOut() : signedIn(view.user, view)}
</main>
</body>
</html>
`;
}

function signedOut(): string {
  return '<p><a class="button" href="/auth/login?return_to=/">Sign in</a></p>';
}

function signedIn(user: { username: string; tier: string }, view: HomeView): string {
  const provider = view.isLocal ? 'demo' : 'openai';
  const key = view.isLocal ? 'demo-my-first-key' : 'sk-...';
  const curl = `curl ${view.publicUrl}/api/v1/byok/keys/add \\
  -H "Content-Type: application/json" \\
  -H "Cookie: ${view.cookieName}=$SESSION" \\
  -d '{"provider": "${provider}", "key": "${key}", "label": "My first key"}'`;
  return `<p>Signed in as <strong>${escape(user.username)}</strong>, tier <strong>${escape(user.tier)}</strong>.</p>
<p>${escape(view.answeredBy ?? '')}</p>
<h2>Add a key</h2>
<pre><code>${escape(curl)}</code></pre>
<form method="post" action="/auth/logout"><button class="button" type="submit">Sign out</button></form>`;
}

/** Kept apart from the page so that its policy needs no inline styles. */
export const HOME_CSS = `:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.5; }
main { max-width: 44rem; margin: 0 auto; padding: 2rem 1rem; }
pre { overflow-x: auto; padding: 1rem; border: 1px solid color-mix(in srgb, currentColor 30%, transparent); border-radius: 0.5rem; }
.button { display: inline-block; padding: 0.5rem 1rem; border: 1px solid currentColor; border-radius: 0.5rem; background: none; color: inherit; font: inherit; text-decoration: none; cursor: pointer; }
.button:focus-visible { outline: 3px solid #4c8dff; outline-offset: 2px; }
`;

function escape(text: string): string {
  const entities: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? '');
}
