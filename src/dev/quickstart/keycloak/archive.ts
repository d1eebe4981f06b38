import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync, readFileSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { runToCompletion } from '../child.ts';
import { StartError } from '../../../lib/errors.ts';

/** Folder of the realm files, the pom and the checksum. The path is valid from `src` and from `dist`. */
export const KEYCLOAK_FOLDER = path.join(import.meta.dirname, '..', '..', '..', '..', 'keycloak');

export interface ArchivePin {
  sha256: string;
  /** File name of the zip. */
  file: string;
  /** Name of the folder inside the zip, e.g. `keycloak-26.7.4`. */
  home: string;
}

/** Reads the pinned checksum, one line in the format of `sha256sum`. */
export function readArchivePin(file = path.join(KEYCLOAK_FOLDER, 'archive.sha256')): ArchivePin {
  const match = /^([0-9a-f]{64}) {2}(keycloak-quarkus-dist-(\S+)\.zip)$/.exec(
    readFileSync(file, 'utf8').trim(),
  );
  if (match === null)
    throw new StartError(`${file} is not a line in the format of sha256sum. Restore the file.`);
  const [, sha256 = '', name = '', version = ''] = match;
  return { sha256, file: name, home: `keycloak-${version}` };
}

/** Folder of the unpacked Keycloak. */
export function keycloakHome(dataDir: string): string {
  return path.join(dataDir, readArchivePin().home);
}

export interface InstallOptions {
  dataDir: string;
  /** Keycloak's home folder. */
  home: string;
  /** Environment of Maven: PATH, HOME, JAVA_HOME, MAVEN_OPTS of this process. */
  env: Record<string, string>;
  note: (text: string) => void;
  signal?: AbortSignal | undefined;
}

/**
 * Installs the pinned Keycloak if it is not there: downloads it with Maven, verifies and unpacks it.
 * @throws StartError if Maven is missing or the archive does not match the checksum.
 */
export async function installKeycloak(options: InstallOptions): Promise<void> {
  if (existsSync(path.join(options.home, 'bin', 'kc.sh'))) return;
  const pin = readArchivePin();
  const folder = path.join(options.dataDir, 'download');
  await mkdir(folder, { recursive: true });
  const archive = path.join(folder, pin.file);
  options.note('downloading the archive (177 MB) with Maven');
  await downloadWithMaven(folder, options);
  options.note('verifying the archive');
  await verifyArchive(archive, pin.sha256);
  options.signal?.throwIfAborted();
  options.note('unpacking');
  await unpackArchive(archive, pin.home, options.home);
  await rm(folder, { recursive: true, force: true });
}

async function downloadWithMaven(folder: string, options: InstallOptions): Promise<void> {
  try {
    await runToCompletion({
      command: 'mvn',
      args: [
        '-B',
        '-ntp',
        '-f',
        path.join(KEYCLOAK_FOLDER, 'pom.xml'),
        'dependency:copy',
        `-Darchive.folder=${folder}`,
      ],
      env: options.env,
      cwd: folder,
      signal: options.signal,
    });
  } catch (error) {
    if (!(error instanceof StartError) || !error.message.includes('ENOENT')) throw error;
    throw new StartError(
      'Maven is needed once to download Keycloak, and it is not installed. Install it (Debian: `apt install maven`, macOS: `brew install maven`), or set KEYCLOAK_URL to your own Keycloak.',
    );
  }
}

/**
 * Compares an archive with the pinned checksum.
 * @throws StartError with both checksums. Removes the archive then, so that the next start downloads it again.
 */
export async function verifyArchive(archive: string, sha256: string): Promise<void> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(archive), hash);
  const found = hash.digest('hex');
  if (found === sha256) return;
  await rm(archive, { force: true });
  throw new StartError(
    `The checksum of ${path.basename(archive)} is wrong, so Keycloak is not installed.\n  expected: ${sha256}\n  found:    ${found}\nThe Maven mirror or the local repository (~/.m2) has another file with that name. Remove it.`,
  );
}

/**
 * Unpacks a zip with a single top-level folder. Keeps the executable bits. The folder appears at `target` only after
 * everything is unpacked.
 * @throws StartError if an entry has a path outside the folder.
 */
export async function unpackArchive(archive: string, inside: string, target: string): Promise<void> {
  const { openPromise } = await import('yauzl');
  const draft = `${target}.new`;
  await rm(draft, { recursive: true, force: true });
  const zip = await openPromise(archive, { lazyEntries: true });
  try {
    for await (const entry of zip.eachEntry()) {
      // yauzl refuses `..`, absolute paths and backslashes too; this is a second check.
      const file = path.resolve(draft, entry.fileName);
      if (!file.startsWith(draft + path.sep))
        throw new StartError(`${archive} has an entry with a path outside its folder.`);
      if (entry.fileName.endsWith('/')) {
        await mkdir(file, { recursive: true });
        continue;
      }
      await mkdir(path.dirname(file), { recursive: true });
      // The upper 16 bits are the Unix mode (APPNOTE 4.4.15).
      const mode = (entry.externalFileAttributes >>> 16) & 0o111 ? 0o755 : 0o644;
      await pipeline(await zip.openReadStreamPromise(entry), createWriteStream(file, { mode }));
    }
  } finally {
    zip.close();
  }
  await rename(path.join(draft, inside), target);
  await rm(draft, { recursive: true, force: true });
}
