import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { addSshServer } from '../runs/ssh-server.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { describeOn } from '../support/hosts.ts';
import { expectAccessible, tabTo } from '../support/page/accessibility.ts';
import { launchChromium } from '../support/page/chromium.ts';
import { openPage, takeStatusLines } from '../support/page/open-page.ts';
import { createServerClient, type ServerClient } from '../support/servers.ts';

/** 1 x 1 px. */
const PNG =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';

describeOn('ssh', 'the page Runs', () => {
  let app: TestApp;
  let browser: Browser;
  let ada: ServerClient;
  let serverId: string;
  /** A program waits until this folder contains a file `go`. */
  let folder: string;
  beforeAll(async () => {
    [app, browser] = await Promise.all([startApp({ env: { EGRESS_ALLOW: '127.0.0.1' } }), launchChromium()]);
    ada = await createServerClient(app);
    serverId = await addSshServer(ada);
    folder = mkdtempSync(path.join(tmpdir(), 'ops-browser-runs-'));
    // The program runs under another account.
    chmodSync(folder, 0o755);
  }, 90_000);
  afterAll(async () => {
    await browser.close();
    await app.stop();
    rmSync(folder, { recursive: true });
  });

  const open = (path: string, session = ada.session) => openPage(browser, app, { path, session });
  const output = (page: Page) => page.getByRole('group', { name: 'Output' });

  async function start(command: string): Promise<string> {
    const response = await app.call(`/api/v1/execution-servers/${serverId}/run`, {
      method: 'POST',
      session: ada.session,
      json: { command },
      headers: { prefer: 'respond-async' },
    });
    return ((await response.json()) as { run_id: string }).run_id;
  }

  /** The events of a running run as they are sent, up to a text of its output. */
  async function readEvents(id: string, upTo: string): Promise<string> {
    const response = await app.call(`/api/v1/runs/${id}/events`, { session: ada.session });
    let text = '';
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk as Uint8Array).toString();
      if (text.includes(upTo) && text.endsWith('\n\n')) return text;
    }
    throw new Error(`the run ended without ${upTo}`);
  }

  it('runs code by keyboard alone, follows its output, and lists it', async () => {
    const { page, complaints } = await open('/runs');
    await page.getByRole('heading', { name: 'Nothing has run yet' }).waitFor();
    await expectAccessible(page);
    await tabTo(page, 'Run code');
    await page.keyboard.press('Enter');
    await page.getByLabel('Code').waitFor();
    await expectAccessible(page);
    await page.getByRole('combobox', { name: 'Language' }).click();
    await page.getByRole('option', { name: 'Bash' }).click();
    await page.getByLabel('Code').fill('echo "hello $NAME"; read line; echo "got $line"; pwd; exit 3');
    await page.getByText('Options').click();
    await page.getByLabel('Environment variables').fill('NAME');
    await page.getByLabel('Folder').fill('/tmp');
    await page.getByLabel('Input (stdin)').fill('a line');
    await expectAccessible(page);
    await page.getByRole('button', { name: 'Run' }).click();
    await page.getByText('Each line must be NAME=value.').waitFor();
    await page.getByLabel('Environment variables').fill('NAME=Ada');
    await page.getByRole('button', { name: 'Run' }).click();

    await output(page).getByText('hello Ada').waitFor();
    await output(page).getByText('got a line').waitFor();
    await output(page).getByText('/tmp', { exact: true }).waitFor();
    await page.getByText('Failed (exit 3)', { exact: true }).waitFor();
    await page.getByRole('status').getByText('The run has ended: Failed (exit 3)').waitFor();
    await page.getByText('Nothing of it is left on the server').waitFor();
    await expectAccessible(page);

    await page.getByRole('link', { name: 'Run again' }).click();
    expect(await page.getByLabel('Code').inputValue()).toContain('hello $NAME');
    await page.goto(`${app.url}/runs`);
    await page.getByRole('row', { name: /Bash/ }).getByText('Failed (exit 3)').waitFor();
    await expectAccessible(page);
    await page.getByRole('combobox', { name: 'Language' }).click();
    await page.getByRole('option', { name: 'Python' }).click();
    await page.getByRole('heading', { name: 'No run matches' }).waitFor();
    await page.getByRole('button', { name: 'Show all runs' }).click();
    await page.getByRole('row', { name: /Bash/ }).waitFor();
    expect(complaints).toEqual([]);
    await page.context().close();
  });

  it('shows colours and images, hides no character, and lets no program write to the clipboard', async () => {
    const id = await start(
      String.raw`printf '\033[31mred\033[0m plain\n\033]52;c;aGFja2Vk\007after\nabc\342\200\256def\n'; echo data:image/png\;base64,${PNG}; echo oops >&2`,
    );
    const { page, complaints } = await open(`/runs/${id}`);
    await page.evaluate(writeClipboard, 'mine');
    await page.getByText('Succeeded', { exact: true }).waitFor();
    expect(await output(page).locator('[data-fg=red]').innerText()).toBe('red');
    expect(await output(page).innerText()).toContain('after\nabcU+202Edef');
    const image = output(page).getByRole('img', { name: 'Image that the program printed' });
    expect(
      await image.evaluate((element) => (element as unknown as { naturalWidth: number }).naturalWidth),
    ).toBe(1);
    expect(await output(page).getByRole('link', { name: 'Download image' }).getAttribute('download')).toBe(
      'figure.png',
    );
    await expectAccessible(page);
    expect(await page.evaluate(readClipboard)).toBe('mine');
    await page.getByRole('button', { name: 'Copy output' }).click();
    await page.getByRole('button', { name: 'Copied' }).waitFor();
    expect(await page.evaluate(readClipboard)).toContain('red plain\nafter\n');
    await page.getByRole('searchbox').fill('PLAIN');
    await page.getByText('1 line', { exact: true }).waitFor();
    expect((await output(page).innerText()).trim()).toBe('red plain');
    const downloading = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download', exact: true }).click();
    expect((await downloading).suggestedFilename()).toBe(`run-${id}.txt`);
    expect(complaints).toEqual([]);
    await page.context().close();
  });

  it('goes on after a lost connection and in another tab, follows the end until one scrolls up, and cancels', async () => {
    const id = await start(
      `for i in $(seq 1 200); do echo early $i; done; until [ -e ${folder}/go ]; do sleep 0.1; done; echo later; sleep 600`,
    );
    const opened = await open('/runs');
    const { page } = opened;
    // The first connection ends after the first events; the page makes another one, which the app answers.
    const first = await readEvents(id, 'early 200');
    await page.route('**/events?from=1', (request) =>
      request.fulfill({ contentType: 'text/event-stream', body: first }),
    );
    await page.getByRole('link', { name: new RegExp(id.slice(0, 8)) }).click();
    await output(page).getByText('early 200', { exact: true }).waitFor();
    expect(await page.getByRole('button', { name: 'Jump to the end' }).count()).toBe(0);
    await output(page).evaluate((element) => {
      (element as unknown as { scrollTop: number }).scrollTop = 0;
    });
    await page.getByRole('button', { name: 'Jump to the end' }).waitFor();
    writeFileSync(path.join(folder, 'go'), '');
    await output(page).getByText('later', { exact: true }).waitFor();
    expect(await output(page).getByText('early 1', { exact: true }).count()).toBe(1);
    expect(opened.network.urls.filter((url) => url.includes('/events?from=')).length).toBeGreaterThan(1);
    await page.getByRole('button', { name: 'Jump to the end' }).click();

    const second = await openPage(browser, app, { path: `/runs/${id}`, context: page.context() });
    await output(second.page).getByText('later', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Cancel run' }).click();
    for (const one of [page, second.page]) await one.getByText('Cancelled', { exact: true }).waitFor();
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('draws 10 MB of output without freezing, and bounds what it keeps', async () => {
    const id = await start(`seq -f '%.0f ${'x'.repeat(80)}' 1 110000`);
    const { page, complaints } = await open(`/runs/${id}`);
    await page.getByText('Succeeded', { exact: true }).waitFor();
    await output(page)
      .getByText(/bytes of stdout are not kept|earlier lines are not shown/)
      .first()
      .waitFor();
    await output(page)
      .getByText(/^110000 x/)
      .waitFor();
    expect(await output(page).locator('div div').count()).toBeLessThan(25_000);
    // A key press is handled while all of it is there.
    const startedMs = Date.now();
    await page.getByRole('searchbox').fill('109999');
    await page.getByText('1 line', { exact: true }).waitFor();
    expect(Date.now() - startedMs).toBeLessThan(5_000);
    expect(complaints).toEqual([]);
    await page.context().close();
  });

  it('shows no run of another user, and what is needed below Starter', async () => {
    const id = await start('true');
    const bob = await createServerClient(app, 'free');
    const opened = await open('/runs', bob.session);
    await opened.page.getByText('Running code needs the tier Starter or higher').waitFor();
    await opened.page.goto(`${app.url}/runs/${id}`);
    await opened.page.getByRole('alert').getByText('This was not found').waitFor();
    await expectAccessible(opened.page);
    expect(takeStatusLines(opened, 404)).toBe(1);
    expect(opened.complaints).toEqual([]);
    await opened.page.context().close();
  });
});

/* The functions below run in the page and have no access to this file. */

interface PageGlobals {
  navigator: { clipboard: { readText(): Promise<string>; writeText(text: string): Promise<void> } };
}

function readClipboard(): Promise<string> {
  return (globalThis as unknown as PageGlobals).navigator.clipboard.readText();
}

function writeClipboard(text: string): Promise<void> {
  return (globalThis as unknown as PageGlobals).navigator.clipboard.writeText(text);
}
