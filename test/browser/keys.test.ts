import { afterAll, afterEach, beforeAll, expect, it } from '@jest/globals';
import type { Browser, Page } from 'playwright-core';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { expectAccessible, tabTo } from '../support/page/accessibility.ts';
import { describeInBrowser, launchChromium } from '../support/page/chromium.ts';
import { openPage, takeStatusLines } from '../support/page/open-page.ts';
import { expectNoSecret } from '../support/page/secrets.ts';
import { adminClient, createUser } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { answer, fault, startUpstream, type Upstream } from '../support/upstream.ts';

describeInBrowser('the page Provider keys', () => {
  let gateway: Gateway;
  let custom: Upstream;
  let browser: Browser;
  beforeAll(async () => {
    [gateway, custom, browser] = await Promise.all([
      startGateway(() => ({
        DEFAULT_LLM_PROVIDER: 'openai',
        DEFAULT_LLM_API_KEY: 'sk-the-key-of-the-system-default',
        DEFAULT_LLM_MODEL: 'gpt-4o',
      })),
      startUpstream(),
      launchChromium(),
    ]);
  });
  afterEach(() => {
    gateway.reset();
    custom.reset();
  });
  afterAll(async () => {
    await browser.close();
    await gateway.stop();
    await custom.stop();
  });

  async function open(options: { tier?: 'free' | 'starter'; path?: string } = {}) {
    const user = await createUser({ tier: options.tier ?? 'starter' });
    const session = await gateway.app.signIn(user);
    const opened = await openPage(browser, gateway.app, { path: options.path ?? '/keys', session });
    return { ...opened, opened, user, session };
  }

  const dialog = (page: Page) => page.getByRole('dialog');
  const keyField = (page: Page) => dialog(page).getByRole('textbox', { name: 'Key', exact: true });

  it('adds a key by keyboard alone: tested, listed, said who pays, and nowhere in the page afterwards', async () => {
    const { page, opened } = await open();
    await page.getByText('0 of 11 providers, 0 valid, tier starter').waitFor();
    await expectAccessible(page);
    await page.getByRole('searchbox').fill('openai');
    expect(await page.getByRole('heading', { level: 3 }).allInnerTexts()).toEqual(['OpenAI']);
    await page.getByText('Using system default: you have no key here').waitFor();
    await tabTo(page, 'Add key for OpenAI');
    await page.keyboard.press('Enter');
    await keyField(page).waitFor();
    await expectAccessible(page);

    const key = openAiKey();
    gateway.openai.answerAll(answer.models());
    await keyField(page).focus();
    await page.keyboard.type(key);
    await tabTo(page, 'Label');
    await page.keyboard.type('Work');
    await page.keyboard.press('Enter');
    const card = dialog(page).getByRole('listitem', { name: 'Work' });
    await card.getByText('Valid').waitFor();
    await dialog(page).getByText('Using your OpenAI key “Work”').waitFor();
    await dialog(page).getByText('1 of 10').waitFor();
    await expectAccessible(page);
    await expectNoSecret(opened, key);

    await page.keyboard.press('Escape');
    await dialog(page).waitFor({ state: 'hidden' });
    expect(new URL(page.url()).search).toBe('');
    await page.getByText('1 key, 1 valid').waitFor();
    await page.goBack();
    await dialog(page).waitFor();
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('takes keys as they are pasted, and says what is wrong with others', async () => {
    const { page, opened } = await open({ path: '/keys?provider=openai' });
    const key = openAiKey();
    for (const pasted of [
      `"${key}"`,
      `Bearer ${key}`,
      `OPENAI_API_KEY=${key}`,
      `export OPENAI_API_KEY='${key}'\n`,
      ` ${key}\n`,
    ]) {
      await keyField(page).fill('');
      await page.evaluate(writeClipboard, pasted);
      await keyField(page).focus();
      await page.keyboard.press('Control+V');
      expect(await keyField(page).inputValue()).toBe(key);
      await dialog(page).getByText('Quotes, names and spaces around the key were removed.').waitFor();
    }
    await keyField(page).fill('sk-ant-api03-abcdefghijklmnopqrstuvwxyz');
    await dialog(page).getByRole('button', { name: 'Test and save' }).click();
    await dialog(page)
      .getByRole('alert')
      .getByText('This looks like a key of Anthropic, not of OpenAI.')
      .waitFor();
    expect(takeStatusLines(opened, 400)).toBe(1);

    gateway.openai.answerAll(answer.models());
    await addKey(gateway.app, await cookieOf(page), { provider: 'openai', key, label: 'First' });
    await keyField(page).fill(key);
    await dialog(page).getByRole('button', { name: 'Test and save' }).click();
    await dialog(page).getByText('You have stored this key already, as “First”.').waitFor();
    expect(takeStatusLines(opened, 409)).toBe(1);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it.each([
    [401, 'Invalid', 'Make a new one there'],
    [403, 'Not allowed', 'Change its rights there'],
    [429, 'No credit', 'Add credit at the provider'],
  ])(
    'stores nothing when the test says %i, names the reason, and keeps what is typed',
    async (status, label, next) => {
      const { page, opened, session } = await open({ path: '/keys?provider=openai' });
      gateway.openai.answerAll(
        answer.error(
          status,
          status === 429 ? { code: 'insufficient_quota', type: 'insufficient_quota' } : {},
        ),
      );
      const key = openAiKey();
      await keyField(page).fill(key);
      await dialog(page).getByRole('textbox', { name: 'Label' }).fill('Work');
      await dialog(page).getByRole('button', { name: 'Test and save' }).click();
      const alert = dialog(page).getByRole('alert');
      await alert.getByText(`Not saved: ${label}`).waitFor();
      await alert.getByText(next).waitFor();
      expect(await keyField(page).inputValue()).toBe(key);
      expect(await dialog(page).getByRole('textbox', { name: 'Label' }).inputValue()).toBe('Work');
      expect(await dialog(page).getByRole('button', { name: 'Save without test' }).count()).toBe(0);
      expect(await (await gateway.app.call('/api/v1/byok/keys', { session })).json()).toEqual([]);
      expect(takeStatusLines(opened, 422)).toBe(1);
      expect(opened.complaints).toEqual([]);
      await page.context().close();
    },
  );

  it('offers to save without a test when the provider cannot be reached, and names an endpoint that accepts any key', async () => {
    const { page, opened } = await open({ path: '/keys?provider=custom' });
    custom.answerAll(fault.resetBeforeHeaders());
    const key = openAiKey();
    await dialog(page).getByRole('textbox', { name: 'Key (optional)' }).fill(key);
    await dialog(page).getByRole('textbox', { name: 'Endpoint' }).fill(custom.url);
    await dialog(page).getByRole('button', { name: 'Test and save' }).click();
    await dialog(page).getByText('Not saved: Not reachable').waitFor();
    expect(takeStatusLines(opened, 422)).toBe(1);
    await dialog(page).getByRole('button', { name: 'Save without test' }).click();
    const card = dialog(page).getByRole('listitem', { name: 'Without a label' });
    await card.getByText('Not tested', { exact: true }).waitFor();

    custom.answerAll(answer.models());
    await card.getByRole('button', { name: 'Test key' }).click();
    await card.getByText(/^Accepts any key/).waitFor();
    await expectNoSecret(opened, key);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('disables, edits, replaces and deletes a key, and asks before it deletes', async () => {
    const { page, opened, session } = await open();
    await addKey(gateway.app, session, { provider: 'openai', key: openAiKey(), label: 'Old' });
    await page.goto(`${gateway.app.url}/keys?provider=openai`);
    const card = (name: string) => dialog(page).getByRole('listitem', { name });
    await card('Old').getByRole('button', { name: 'Disable' }).click();
    await card('Old').getByText('Disabled', { exact: true }).waitFor();
    await dialog(page).getByText('No key is used: requests are refused').waitFor();
    await card('Old').getByRole('button', { name: 'Enable' }).click();
    await dialog(page).getByText('Using your OpenAI key “Old”').waitFor();

    await card('Old').getByRole('button', { name: 'Edit' }).click();
    await dialog(page).getByRole('textbox', { name: 'Label' }).fill('New');
    await dialog(page).getByLabel('Expires on').fill('2099-05-01');
    await dialog(page).getByRole('button', { name: 'Save', exact: true }).click();
    await card('New').getByText('2099').waitFor();

    const replacement = openAiKey();
    gateway.openai.answerAll(answer.models());
    await card('New').getByRole('button', { name: 'Replace' }).click();
    await keyField(page).fill(replacement);
    await expectAccessible(page);
    await dialog(page).getByRole('button', { name: 'Test and save' }).click();
    await card('New').getByText('Valid').waitFor();
    await keyField(page).waitFor({ state: 'hidden' });
    await card('New').getByText(replacement.slice(-4)).waitFor();
    await expectNoSecret(opened, replacement);

    await card('New').getByRole('button', { name: 'Delete' }).click();
    const question = page.getByRole('dialog', { name: 'Delete this key?' });
    await question.getByText('“New” of OpenAI is removed.').waitFor();
    await expectAccessible(page);
    await question.getByRole('button', { name: 'Delete' }).click();
    await dialog(page).getByText('0 of 10').waitFor();
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('adds no eleventh key, and deletes all of them after their provider is typed', async () => {
    const { page, opened, session } = await open();
    for (let count = 0; count < 9; count += 1)
      await addKey(gateway.app, session, {
        provider: 'openai',
        key: openAiKey(),
        label: `Key ${String(count)}`,
      });
    await page.goto(`${gateway.app.url}/keys?provider=openai`);
    gateway.openai.answerAll(answer.models());
    await dialog(page).getByText('9 of 10').waitFor();
    await dialog(page).getByRole('button', { name: 'Add key' }).click();
    await keyField(page).fill(openAiKey());
    await dialog(page).getByRole('button', { name: 'Test and save' }).click();
    await dialog(page).getByText('10 of 10').waitFor();
    expect(await dialog(page).getByRole('button', { name: 'Add key' }).isDisabled()).toBe(true);
    await dialog(page).getByText('Delete a key to add another one.').waitFor();

    await dialog(page).getByRole('button', { name: 'Delete all' }).click();
    const question = page.getByRole('dialog', { name: 'Delete all keys of OpenAI?' });
    const confirm = question.getByRole('button', { name: 'Delete all' });
    expect(await confirm.isDisabled()).toBe(true);
    await question.getByRole('textbox').fill('OpenAI');
    await confirm.click();
    await dialog(page).getByText('0 of 10').waitFor();
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('keeps the label, but not the key, when the session ends while typing', async () => {
    const { page, opened } = await open({ path: '/keys?provider=openai' });
    const key = openAiKey();
    await keyField(page).fill(key);
    await dialog(page).getByRole('textbox', { name: 'Label' }).fill('Kept');
    const cookies = await page.context().cookies();
    await page.context().clearCookies({ name: 'session' });
    await dialog(page).getByRole('button', { name: 'Test and save' }).click();
    const ended = page.getByRole('dialog', { name: 'Your session has ended' });
    const link = ended.getByRole('link', { name: 'Sign in again' });
    expect(await link.getAttribute('href')).toBe('/auth/login?return_to=%2Fkeys%3Fprovider%3Dopenai');
    await page.context().addCookies(cookies);
    await page.reload();
    await dialog(page).getByText('Enter the key again: secrets are not kept.').waitFor();
    expect(await dialog(page).getByRole('textbox', { name: 'Label' }).inputValue()).toBe('Kept');
    expect(await keyField(page).inputValue()).toBe('');
    await expectNoSecret(opened, key);
    expect(takeStatusLines(opened, 401)).toBeGreaterThan(0);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('is readable below Starter, says what is needed, and deletes', async () => {
    const { page, opened, user, session } = await open();
    await addKey(gateway.app, session, { provider: 'openai', key: openAiKey(), label: 'Mine' });
    await page.goto(`${gateway.app.url}/keys?provider=openai`);
    const card = dialog(page).getByRole('listitem', { name: 'Mine' });
    await card.getByRole('button', { name: 'Test key' }).waitFor();
    // The tier is lowered while the page is open.
    const admin = await adminClient();
    const now = await admin.users.findOne({ id: user.id });
    const attributes = { ...now?.attributes, subscription_tier: ['free'] };
    await admin.users.update({ id: user.id }, { ...now, attributes });
    const readTier = async () => {
      const me = (await (await gateway.app.call('/api/v1/me', { session })).json()) as { tier: string };
      return me.tier;
    };
    await until(readTier, (tier) => tier === 'free');
    await card.getByRole('button', { name: 'Test key' }).click();
    await card.getByText(/This needs the starter tier or higher; yours is free/).waitFor();
    expect(takeStatusLines(opened, 403)).toBe(1);

    await page.reload();
    await page.getByText('needs the tier Starter or higher; yours is Free').waitFor();
    await card.waitFor();
    expect(await card.getByRole('button').allInnerTexts()).toEqual(['Delete']);
    await expectAccessible(page);
    await card.getByRole('button', { name: 'Delete' }).click();
    await page
      .getByRole('dialog', { name: 'Delete this key?' })
      .getByRole('button', { name: 'Delete' })
      .click();
    await dialog(page).getByText('0 of 10').waitFor();
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });
});

async function cookieOf(page: Page): Promise<string> {
  const cookies = await page.context().cookies();
  return cookies.find(({ name }) => name === 'session')?.value ?? '';
}

/** Runs in the page and has no access to this file. */
function writeClipboard(text: string): Promise<void> {
  const { navigator } = globalThis as unknown as {
    navigator: { clipboard: { writeText(text: string): Promise<void> } };
  };
  return navigator.clipboard.writeText(text);
}
