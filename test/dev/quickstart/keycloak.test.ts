import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  stopKeycloak,
  listPlaceholders,
  copyRealmFiles,
} from '../../../src/dev/quickstart/keycloak/keycloak.ts';
import { startOwnKeycloak } from '../../../src/dev/quickstart/keycloak/runtime.ts';
import { KEYCLOAK_FOLDER } from '../../../src/dev/quickstart/keycloak/archive.ts';
import { isProcessRunning } from '../../../src/dev/quickstart/processes.ts';
import { createSecrets } from '../../../src/dev/quickstart/secrets.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ops-keycloak-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

const FILES = ['ops-center-realm.json', 'ops-center-vault-realm.json'];
const readRealm = (file: string) => readFileSync(path.join(KEYCLOAK_FOLDER, file), 'utf8');

describe('the realm files', () => {
  it.each(FILES)('%s reads every client secret from the environment, without a default', (file) => {
    const { clients } = JSON.parse(readRealm(file)) as { clients: { secret: string }[] };
    expect(clients.length).toBeGreaterThan(0);
    for (const { secret } of clients) expect(secret).toMatch(/^\$\{KEYCLOAK_[A-Z]+_CLIENT_SECRET\}$/);
  });

  it.each(FILES)('%s contains no user except service accounts', (file) => {
    const { users } = JSON.parse(readRealm(file)) as { users: { username: string; credentials?: unknown }[] };
    for (const user of users) {
      expect(user.username).toMatch(/^service-account-/);
      expect(user.credentials).toBeUndefined();
    }
  });

  it('are not imported if a placeholder has no value', async () => {
    const names = new Set(FILES.flatMap((file) => listPlaceholders(readRealm(file))));
    expect(names).toEqual(
      new Set([
        'PUBLIC_URL',
        'INTERNAL_URL',
        'KEYCLOAK_WEB_CLIENT_SECRET',
        'KEYCLOAK_SERVICE_CLIENT_SECRET',
        'KEYCLOAK_VAULT_CLIENT_SECRET',
      ]),
    );
    const all = Object.fromEntries([...names].map((name) => [name, 'set']));
    await copyRealmFiles(folder, all);
    expect(existsSync(path.join(folder, 'data', 'import', 'ops-center-realm.json'))).toBe(true);
    for (const name of names) {
      await expect(copyRealmFiles(folder, { ...all, [name]: '' })).rejects.toThrow(`without ${name}`);
    }
  });
});

describe('a Keycloak that a killed start left running', () => {
  const children: ChildProcess[] = [];
  afterEach(async () => {
    for (const child of children.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  });

  /** Starts a process with the command line of a Keycloak JVM. */
  async function startProcess(home: string): Promise<ChildProcess> {
    const args = ['-e', 'setInterval(() => {}, 1e6)', '--', `-Dkc.home.dir=${home}/bin/..`];
    const child = spawn(process.execPath, args, { stdio: 'ignore' });
    children.push(child);
    await once(child, 'spawn');
    return child;
  }

  it('is stopped, also with another version, and one of another data directory is not', async () => {
    const own = [
      await startProcess(path.join(folder, 'own', 'keycloak-26.7.4')),
      await startProcess(path.join(folder, 'own', 'keycloak-26.6.0')),
    ];
    const other = await startProcess(path.join(folder, 'other', 'keycloak-26.7.4'));
    const ended = own.map((child) => once(child, 'exit'));
    await stopKeycloak(path.join(folder, 'own'));
    await Promise.all(ended);
    expect(isProcessRunning(other.pid ?? 0)).toBe(true);
  });
});

describe('starting Keycloak', () => {
  it('says what to install, start or set without Java and Docker', async () => {
    const start = startOwnKeycloak({
      dataDir: folder,
      port: 0,
      secrets: createSecrets(folder),
      publicUrl: 'http://localhost:1',
      internalUrl: 'http://localhost:1',
      environment: { PATH: folder },
      note: () => undefined,
    });
    await expect(start).rejects.toThrow(
      /Java is not installed.*Java 17, 21 or 25 and.* Maven.*Install both .*JAVA_HOME.* or start Docker.* or set KEYCLOAK_URL/s,
    );
  });
});
