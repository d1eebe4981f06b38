import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Browser, Page } from 'playwright-core';
import { startDemoUpstream, type DemoUpstream } from '../../src/dev/demo-upstream/server.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { evidence } from '../support/evidence.ts';
import { addKey } from '../support/key.ts';
import { expectAccessible, tabTo } from '../support/page/accessibility.ts';
import { describeInBrowser, fillInLogin, launchChromium } from '../support/page/chromium.ts';
import { openPage } from '../support/page/open-page.ts';
import { expectNoSecret } from '../support/page/secrets.ts';
import { setSignInAge } from '../support/sign-in-age.ts';
import { createUser } from '../support/stack.ts';

const run = promisify(execFile);
/** With the packages `openai` and `anthropic`. Without it, the lines for Python are not run. */
const python = process.env['OPS_TEST_PYTHON'];

describeInBrowser('the page Access tokens', () => {
  let demo: DemoUpstream;
  let app: TestApp;
  let browser: Browser;
  let folder: string;
  beforeAll(async () => {
    [demo, browser] = await Promise.all([startDemoUpstream(), launchChromium()]);
    app = await startApp({
      env: {
        UPSTREAM_DEMO_URL: demo.url,
        DEFAULT_LLM_PROVIDER: 'demo',
        DEFAULT_LLM_BASE_URL: demo.url,
        DEFAULT_LLM_API_KEY: 'demo-the-key-of-the-system-default',
        DEFAULT_LLM_MODEL: 'demo',
      },
    });
    folder = await mkdtemp(path.join(tmpdir(), 'snippets-'));
    await symlink(path.resolve('node_modules'), path.join(folder, 'node_modules'));
  });
  afterAll(async () => {
    await browser.close();
    await app.stop();
    await demo.stop();
    await rm(folder, { recursive: true });
  });

  async function open(options: { withKey?: boolean } = {}) {
    const session = await app.signIn(await createUser({ tier: 'starter' }));
    const keyId =
      options.withKey === true
        ? await addKey(app, session, { provider: 'demo', key: 'demo-my-first-key', label: 'Mine' })
        : '';
    return { ...(await openPage(browser, app, { path: '/tokens', session })), session, keyId };
  }

  const dialog = (page: Page) => page.getByRole('dialog');

  /** The lines of a tab, as the page shows them. */
  async function readSnippet(page: Page, name: string): Promise<string> {
    await dialog(page).getByRole('tab', { name, exact: true }).click();
    return dialog(page).getByRole('group', { name, exact: true }).innerText();
  }

  async function writeScript(name: string, text: string): Promise<string> {
    const file = path.join(folder, name);
    await writeFile(file, text);
    return file;
  }

  it('makes a token by keyboard alone, whose lines work as they are shown, and shows the first request', async () => {
    const opened = await open();
    const { page, network } = opened;
    await page.getByRole('heading', { name: 'No access tokens yet' }).waitFor();
    await expectAccessible(page);
    await tabTo(page, 'Make a token');
    await page.keyboard.press('Enter');
    await dialog(page).getByLabel('Name').waitFor();
    await expectAccessible(page);
    await page.keyboard.type('Laptop');
    await page.keyboard.press('Enter');
    await dialog(page).getByText('Copy it now: it is not shown again.').waitFor();
    await expectAccessible(page);
    const token = (await dialog(page).locator('code').first().innerText()).trim();
    expect(token).toMatch(/^oc_[0-9A-Za-z]{38}$/);
    await dialog(page).getByRole('button', { name: 'Copy token' }).click();
    expect(await page.evaluate(readClipboard)).toBe(token);

    await dialog(page).getByText('Waiting for the first request').waitFor();
    const curl = await run('bash', [
      '-c',
      `${await readSnippet(page, 'curl')} --silent --show-error --fail-with-body`,
    ]);
    expect(JSON.parse(curl.stdout)).toMatchObject({ object: 'chat.completion' });
    await dialog(page)
      .getByText(/^The first request has arrived: curl.*, status 200$/)
      .waitFor();

    const node = process.execPath;
    for (const name of ['OpenAI, Node', 'Anthropic, Node']) {
      const file = await writeScript(`${name.slice(0, 6)}.mjs`, await readSnippet(page, name));
      expect((await run(node, [file])).stdout).toMatch(/\w/);
    }
    for (const name of python === undefined ? [] : ['OpenAI, Python', 'Anthropic, Python']) {
      const file = await writeScript(`${name.slice(0, 6)}.py`, await readSnippet(page, name));
      expect((await run(python ?? '', [file])).stdout).toMatch(/\w/);
    }
    for (const name of ['Claude Code', 'Codex', 'opencode', 'Cursor', 'Continue'])
      expect(await readSnippet(page, name)).toContain(app.url);

    network.bodies.length = 0;
    await dialog(page).getByRole('button', { name: 'Done' }).click();
    await page
      .getByRole('row', { name: /Laptop/ })
      .getByText('Use models')
      .waitFor();
    await expectAccessible(page);
    await expectNoSecret(opened, token);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('asks for the password again when it was entered long ago, and comes back', async () => {
    const user = await createUser({ tier: 'starter' });
    const session = await app.signIn(user);
    const { page } = await openPage(browser, app, { path: '/tokens', session });
    await setSignInAge(app, user.id, 16);
    await page.getByRole('button', { name: 'Make a token' }).first().click();
    await dialog(page).getByLabel('Name').fill('Laptop');
    await page.keyboard.press('Enter');
    await dialog(page).getByRole('alert').getByRole('link', { name: 'Sign in again' }).click();
    await fillInLogin(page, user);
    await page.waitForURL(`${app.url}/tokens`);
    await page.getByRole('heading', { name: 'Access tokens', exact: true }).waitFor();
    const json = { name: 'x', scopes: ['chat'] };
    const renewed = (await page.context().cookies()).find(({ name }) => name === 'session')?.value ?? '';
    const created = await app.call('/api/v1/tokens', { method: 'POST', session: renewed, json });
    expect(created.status).toBe(201);
    const { token } = (await created.json()) as { token: string };
    evidence.registerSecret('credential of a request', token);
  });

  it('limits a token to scopes, models, keys and a time, and revokes it', async () => {
    const { page, complaints, session, keyId } = await open({ withKey: true });
    await page.getByRole('button', { name: 'Make a token' }).click();
    await dialog(page).getByLabel('Name').fill('Limited');
    await dialog(page).getByLabel('Use models').uncheck();
    await dialog(page).getByRole('button', { name: 'Make token' }).click();
    await dialog(page).getByText('Choose at least one.').waitFor();
    await dialog(page).getByLabel('Use models').check();
    await dialog(page).getByLabel('Read', { exact: true }).check();
    await dialog(page).getByRole('combobox', { name: 'Expires' }).click();
    await page.getByRole('option', { name: 'Never' }).click();
    await dialog(page).getByText('Limits').click();
    await dialog(page).getByRole('textbox', { name: 'Models' }).fill('demo/*\ndemo/demo');
    await dialog(page).getByLabel('Demo: Mine').check();
    await expectAccessible(page);
    // What is typed survives a reload, e.g. a sign-in that this step may ask for.
    await page.reload();
    await page.getByRole('button', { name: 'Make a token' }).click();
    expect(await dialog(page).getByLabel('Name').inputValue()).toBe('Limited');
    await dialog(page).getByRole('button', { name: 'Make token' }).click();
    await dialog(page).getByRole('button', { name: 'Done' }).click();

    const listed = await (await app.call('/api/v1/tokens', { session })).json();
    expect(listed).toMatchObject([
      {
        name: 'Limited',
        scopes: ['chat', 'keys:read'],
        expires_at: null,
        models: ['demo/*', 'demo/demo'],
        key_ids: [keyId],
      },
    ]);
    const row = page.getByRole('row', { name: /Limited/ });
    await row.getByText('demo/*, demo/demo; 1 key').waitFor();
    await row.getByRole('button', { name: 'Revoke Limited' }).click();
    await dialog(page).getByText('Programs that use “Limited” are refused').waitFor();
    await expectAccessible(page);
    await dialog(page).getByRole('button', { name: 'Revoke', exact: true }).click();
    await page.getByRole('heading', { name: 'No access tokens yet' }).waitFor();
    expect(complaints).toEqual([]);
    await page.context().close();
  });
});

/** Runs in the page and has no access to this file. */
function readClipboard(): Promise<string> {
  const { navigator } = globalThis as unknown as {
    navigator: { clipboard: { readText(): Promise<string> } };
  };
  return navigator.clipboard.readText();
}
