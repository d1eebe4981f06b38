import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { Browser, Page } from 'playwright-core';
import { sshServerConfig } from '../runs/ssh-server.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { evidence } from '../support/evidence.ts';
import { describeOn, sshHosts } from '../support/hosts.ts';
import { expectAccessible, tabTo } from '../support/page/accessibility.ts';
import { launchChromium } from '../support/page/chromium.ts';
import { openPage, takeStatusLines } from '../support/page/open-page.ts';
import { expectNoSecret } from '../support/page/secrets.ts';
import { createServerClient, type ServerClient } from '../support/servers.ts';

describeOn('ssh', 'the page Execution servers', () => {
  let app: TestApp;
  let browser: Browser;
  let ada: ServerClient;
  beforeAll(async () => {
    [app, browser] = await Promise.all([startApp({ env: { EGRESS_ALLOW: '127.0.0.1' } }), launchChromium()]);
    ada = await createServerClient(app);
  }, 90_000);
  afterAll(async () => {
    await browser.close();
    await app.stop();
  });

  const open = (path: string, session = ada.session) => openPage(browser, app, { path, session });
  const stages = (page: Page) => page.getByRole('region', { name: 'Last test' });

  it('adds an SSH server by keyboard alone, confirms its host key, and finds it online', async () => {
    const { plain, user, password } = sshHosts();
    evidence.registerSecret('password', password);
    const opened = await open('/servers');
    const { page } = opened;
    await page.getByRole('heading', { name: 'No execution servers yet' }).waitFor();
    await expectAccessible(page);
    await tabTo(page, 'Add server');
    await page.keyboard.press('Enter');
    await page.getByRole('radio', { name: /^SSH/ }).waitFor();
    await expectAccessible(page);

    await tabTo(page, 'Name');
    await page.keyboard.type('My machine');
    await tabTo(page, 'Paste an ssh command or a Host block');
    await page.keyboard.type(`ssh -A -p ${String(plain.port)} ${user}@${plain.host}`);
    await page.getByText('Not used here: -A').waitFor();
    expect(await page.getByLabel('Host', { exact: true }).inputValue()).toBe(plain.host);
    expect(await page.getByLabel('Port').inputValue()).toBe(String(plain.port));
    expect(await page.getByLabel('User name').inputValue()).toBe(user);
    await page.getByText('Password', { exact: true }).click();
    await page.getByLabel('Password', { exact: true }).last().fill(password);
    await page.getByLabel('Set-up line').fill('export GREETING=hello');
    await expectAccessible(page);
    await page.getByRole('button', { name: 'Save and test' }).click();

    // The test ends at the host key, before the host receives the password.
    const notice = page.getByRole('region', { name: 'Is this your host?' });
    await notice.getByText(plain.hostKey.fingerprint).waitFor();
    await stages(page).getByText('Compare the fingerprint with the one on the host').waitFor();
    await expectAccessible(page);
    await notice.getByRole('button', { name: 'It is the same: confirm' }).click();
    await page.getByRole('status').getByText('Online').waitFor({ timeout: 45_000 });
    await stages(page).getByText('Set-up line').waitFor();
    await stages(page).getByText('Leaves nothing behind').waitFor();
    await expectAccessible(page);
    await expectNoSecret(opened, password);

    await page.getByLabel('Access tokens may run code here').click();
    await page.getByRole('button', { name: 'Disable' }).click();
    await page.getByRole('status').getByText('Disabled').waitFor();
    const [stored] = await ada.list();
    expect(stored).toMatchObject({
      name: 'My machine',
      token_runs: true,
      is_active: false,
      test_status: 'online',
    });
    await page.getByRole('button', { name: 'Enable' }).click();
    await page.getByRole('button', { name: 'Disable' }).waitFor();

    await page.goto(`${app.url}/servers`);
    await page.getByRole('listitem').getByText('Online').waitFor();
    await expectAccessible(page);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('makes a key pair with the line to run on the host, and keeps stored secrets when a server is edited', async () => {
    const { id } = await ada.add({ name: 'Edited', connection_config: sshServerConfig() });
    const opened = await open('/servers/new');
    const { page } = opened;
    await page.getByRole('button', { name: 'Make a new pair' }).click();
    const line = await page.locator('code', { hasText: 'authorized_keys' }).innerText();
    expect(line).toMatch(/^mkdir -p -m 700 ~\/\.ssh && echo 'ssh-ed25519 /);
    expect(await page.getByLabel('Private key').inputValue()).toContain('PRIVATE KEY');

    await page.goto(`${app.url}/servers/${id}`);
    await page.getByRole('button', { name: 'Edit' }).click();
    expect(await page.getByLabel('Password', { exact: true }).last().inputValue()).toBe('');
    await page.getByText('Leave empty to keep the stored one.').first().waitFor();
    await page.getByLabel('Name', { exact: true }).fill('Renamed');
    await expectAccessible(page);
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByRole('heading', { name: 'Renamed' }).waitFor();
    await ada.confirm(id, sshHosts().plain.hostKey);
    expect(await ada.test(id)).toMatchObject({ status: 'online' });
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('says what changed when another tab has changed the server, and what is wrong with a field', async () => {
    const server = await ada.add({ name: 'Shared', connection_config: sshServerConfig() });
    const opened = await open(`/servers/${server.id}`);
    const { page } = opened;
    await page.getByRole('button', { name: 'Edit' }).click();
    await page.getByLabel('Host', { exact: true }).fill('not a host');
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByText('A host is a name or an address, without port or user.').first().waitFor();
    expect(takeStatusLines(opened, 400)).toBe(1);
    await page.getByLabel('Host', { exact: true }).fill('127.0.0.1');

    await ada.change(server.id, { workspace_path: '/tmp', is_active: false });
    await page.getByLabel('Name', { exact: true }).fill('Mine');
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page
      .getByRole('alert')
      .getByText(/Changed in another tab or by another program: workspace_path, is_active/)
      .waitFor();
    expect(takeStatusLines(opened, 412)).toBe(1);
    expect(await page.getByLabel('Name', { exact: true }).inputValue()).toBe('Mine');
    await expectAccessible(page);
    await page.getByRole('button', { name: 'Load the current values' }).click();
    await page.getByLabel('Folder in which programs start').and(page.locator('[value="/tmp"]')).waitFor();
    await page.getByLabel('Name', { exact: true }).fill('Ours');
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByRole('heading', { name: 'Ours' }).waitFor();

    await page.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('dialog').getByText('“Ours” and its credentials are removed from here.').waitFor();
    await expectAccessible(page);
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('heading', { name: 'Execution servers' }).waitFor();
    expect((await ada.list()).map(({ name }) => name)).not.toContain('Ours');
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('blocks a host whose key has changed, and shows both keys', async () => {
    const { plain } = sshHosts();
    const { id } = await ada.add({ name: 'Changed', connection_config: sshServerConfig() });
    const old = { type: plain.hostKey.type, fingerprint: `SHA256:${'A'.repeat(43)}` };
    await ada.confirm(id, old);
    await ada.test(id);
    const { page, complaints } = await open(`/servers/${id}`);
    const notice = page.getByRole('region', { name: 'The host key has changed' });
    await notice.getByText(old.fingerprint).waitFor();
    await notice.getByText(plain.hostKey.fingerprint).waitFor();
    await page.getByRole('status').getByText('Host key changed').waitFor();
    await expectAccessible(page);
    await notice.getByRole('button', { name: 'It is the same: confirm' }).click();
    await page.getByRole('status').getByText('Online').waitFor({ timeout: 45_000 });
    expect(complaints).toEqual([]);
    await page.context().close();
  });

  it('has forms for Docker and Kubernetes, and is readable below Starter', async () => {
    const { page, complaints } = await open('/servers/new');
    await page.getByRole('radio', { name: /^Docker/ }).check();
    await page.getByText('Who can use a Docker engine is root on its machine.').waitFor();
    await expectAccessible(page);
    await page.getByRole('radio', { name: /^Kubernetes/ }).check();
    await page.getByLabel('kubeconfig').waitFor();
    await expectAccessible(page);
    await page.context().close();
    const bob = await createServerClient(app, 'free');
    const free = await open('/servers', bob.session);
    await free.page
      .getByText('Adding, changing and testing servers needs the tier Starter or higher')
      .waitFor();
    expect(await free.page.getByRole('link', { name: 'Add server' }).count()).toBe(0);
    await expectAccessible(free.page);
    expect([...complaints, ...free.complaints]).toEqual([]);
    await free.page.context().close();
  });
});
