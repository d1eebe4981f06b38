import { describe, expect, it } from '@jest/globals';
import { renderHomePage, type HomeState } from '../../src/home/page.ts';

const settings = { publicUrl: 'http://localhost:3000', cookieName: 'session', isLocal: true };
const signedIn = (username: string): HomeState => ({
  kind: 'signed_in',
  user: { username, tier: 'starter' },
  routeSentence: 'The system default (demo) would serve the next chat request.',
});

describe('the home page', () => {
  it('escapes names and sentences', () => {
    const hostile = `<img src=x onerror="alert(1)">&'`;
    const states: HomeState[] = [
      { kind: 'signed_in', user: { username: hostile, tier: hostile }, routeSentence: hostile },
      { kind: 'failed', error: { detail: hostile } },
    ];
    for (const state of states) {
      const page = renderHomePage({ ...settings, publicUrl: hostile, cookieName: hostile, state });
      expect(page).not.toContain('<img');
      expect(page).toContain('&lt;img src=x onerror=&quot;alert(1)&quot;&gt;&amp;&#39;');
    }
  });

  it('has an example that works unchanged with the demo users and provider', () => {
    const page = renderHomePage({ ...settings, state: signedIn('starter') });
    expect(page).toContain('SESSION=$(npm run -s ops -- session starter)');
    expect(page).toContain('curl -X POST http://localhost:3000/api/v1/byok/keys/add');
    expect(page).toContain('&quot;provider&quot;: &quot;demo&quot;');
  });

  it('puts only names into the example that need no shell quotes', () => {
    for (const name of ['a; rm -rf x', '$(id)', '`id`', '-x', 'a b']) {
      const page = renderHomePage({ ...settings, state: signedIn(name) });
      expect(page).toContain('SESSION=$(npm run -s ops -- session starter)');
    }
  });

  it('names neither demo users nor the demo provider in a deployment', () => {
    const page = renderHomePage({
      publicUrl: 'https://ops.example',
      cookieName: '__Host-session',
      isLocal: false,
      state: signedIn('starter'),
    });
    expect(page).not.toMatch(/demo-|npm run/);
    expect(page).toContain('the value of your cookie __Host-session');
    expect(page).toContain('-H &quot;Cookie: __Host-session=$SESSION&quot;');
  });
});
