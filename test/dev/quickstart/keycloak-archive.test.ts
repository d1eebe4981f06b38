import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  installKeycloak,
  KEYCLOAK_FOLDER,
  keycloakHome,
  readArchivePin,
  unpackArchive,
  verifyArchive,
} from '../../../src/dev/quickstart/keycloak/archive.ts';
import { zipOf } from './zip.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ops-archive-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

function write(name: string, content: Buffer): string {
  const file = path.join(folder, name);
  writeFileSync(file, content);
  return file;
}

describe('the pinned checksum of the Keycloak archive', () => {
  it('names the version that the pom downloads', () => {
    const pom = readFileSync(path.join(KEYCLOAK_FOLDER, 'pom.xml'), 'utf8');
    const version = /<keycloak\.version>(.*)<\/keycloak\.version>/.exec(pom)?.[1];
    expect(readArchivePin().home).toBe(`keycloak-${version}`);
  });

  it('accepts an archive with that checksum and removes any other', async () => {
    const content = Buffer.from('an archive');
    const sha256 = createHash('sha256').update(content).digest('hex');
    const archive = write('a.zip', content);
    await verifyArchive(archive, sha256);
    writeFileSync(archive, 'another archive');
    await expect(verifyArchive(archive, sha256)).rejects.toThrow(/The checksum of .* is wrong/);
    expect(existsSync(archive)).toBe(false);
  });
});

describe('unpacking', () => {
  it('keeps the executable bits of files', async () => {
    const archive = write(
      'a.zip',
      zipOf([
        { name: 'kc/bin/', content: '' },
        { name: 'kc/bin/kc.sh', content: '#!/bin/sh\n', mode: 0o755 },
        { name: 'kc/conf/keycloak.conf', content: 'a=b\n' },
      ]),
    );
    const home = path.join(folder, 'home');
    await unpackArchive(archive, 'kc', home);
    expect(statSync(path.join(home, 'bin', 'kc.sh')).mode & 0o777).toBe(0o755);
    expect(statSync(path.join(home, 'conf', 'keycloak.conf')).mode & 0o111).toBe(0);
    expect(readFileSync(path.join(home, 'conf', 'keycloak.conf'), 'utf8')).toBe('a=b\n');
  });

  it.each(['../outside', 'kc/../../outside', '/outside', 'kc\\..\\..\\outside'])(
    'refuses an archive with the path %s and leaves no partial installation',
    async (name) => {
      const archive = write(
        'a.zip',
        zipOf([
          { name: 'kc/bin/kc.sh', content: '', mode: 0o755 },
          { name, content: 'evil' },
        ]),
      );
      const inner = path.join(folder, 'inner');
      mkdirSync(inner);
      await expect(unpackArchive(archive, 'kc', path.join(inner, 'home'))).rejects.toThrow();
      expect(existsSync(path.join(inner, 'home'))).toBe(false);
      expect(readdirSync(folder).sort()).toEqual(['a.zip', 'inner']);
    },
  );

  it('starts again after it was interrupted', async () => {
    const home = path.join(folder, 'home');
    mkdirSync(`${home}.new/kc/bin`, { recursive: true });
    writeFileSync(`${home}.new/kc/bin/left-over`, '');
    await unpackArchive(write('a.zip', zipOf([{ name: 'kc/bin/kc.sh', content: '' }])), 'kc', home);
    expect(readdirSync(path.join(home, 'bin'))).toEqual(['kc.sh']);
    expect(existsSync(`${home}.new`)).toBe(false);
  });
});

describe('installing', () => {
  it('says what to install or set if Maven is missing', async () => {
    await expect(
      installKeycloak({
        dataDir: folder,
        home: keycloakHome(folder),
        env: { PATH: folder },
        note: () => undefined,
      }),
    ).rejects.toThrow(/Install it .*maven.* or set KEYCLOAK_URL/s);
  });

  it('downloads nothing if Keycloak is installed', async () => {
    const home = keycloakHome(folder);
    mkdirSync(path.join(home, 'bin'), { recursive: true });
    writeFileSync(path.join(home, 'bin', 'kc.sh'), '');
    await installKeycloak({ dataDir: folder, home, env: { PATH: folder }, note: () => undefined });
    expect(readdirSync(folder)).toEqual([path.basename(home)]);
  });

  it('refuses and removes a downloaded archive with another checksum', async () => {
    const maven = path.join(folder, 'mvn');
    writeFileSync(maven, `#!/bin/sh\necho other > ${folder}/download/${readArchivePin().file}\n`, {
      mode: 0o755,
    });
    const home = keycloakHome(folder);
    const install = installKeycloak({
      dataDir: folder,
      home,
      env: { PATH: `${folder}:/usr/bin:/bin` },
      note: () => undefined,
    });
    await expect(install).rejects.toThrow(/The checksum of .* is wrong/);
    expect(existsSync(home)).toBe(false);
    expect(readdirSync(path.join(folder, 'download'))).toEqual([]);
  });
});
