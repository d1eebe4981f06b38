import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync, readFileSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { runToCompletion } from '../child.ts';
import { StartError } from '../../../cli/start-error.ts';

/** Where the realm files, the pom and the pin lie, for the source and for the built server alike. */
export const KEYCLOAK_FOLDER = path.join(import.meta.dirname, '..', '..', '..', '..', 'keycloak');

export interface ArchivePin {
  sha256: string;
  /** Name of the zip. */
  file: string;
  /** Name of the folder inside it, e.g. `keycloak-26.7.4`. */
  home: string;
}

/** Reads the one place where the archive is pinned; a line as `sha256sum` writes it. */
export function readArchivePin(file = path.join(KEYCLOAK_FOLDER, 'archive.sha256')): ArchivePin {
  const match = /^([0-9a-f]{64}) {2}(keycloak-quarkus-dist-(\S+)\.zip)$/.exec(
    readFileSync(file, 'utf8').trim(),
  );
  if (match === null) throw new StartError(`${file} is not a line of sha256sum.`);
  const [, sha256 = '', name = '', version = ''] = match;
  return { sha256, file: name, home: `keycloak-${version}` };
}

/** Where the pinned Keycloak is unpacked, and where it keeps its data. */
export function keycloakHome(dataDir: string): string {
  return path.join(dataDir, readArchivePin().home);
}

export interface InstallOptions {
  dataDir: string;
  /** Keycloak's home folder. */
  home: string;
  /** The environment of ours that Maven is given: PATH, HOME, JAVA_HOME, MAVEN_OPTS. */
  env: Record<string, string>;
  note: (text: string) => void;
  signal?: AbortSignal | undefined;
}

/**
 * Makes sure that the pinned Keycloak is unpacked. Fetches it with Maven on the first run.
 * @throws StartError without Maven, or when the archive is not the pinned one.
 */
export async function installKeycloak(options: InstallOptions): Promise<void> {
  if (existsSync(path.join(options.home, 'bin', 'kc.sh'))) return;
  const pin = readArchivePin();
  const folder = path.join(options.dataDir, 'download');
  await mkdir(folder, { recursive: true });
  const archive = path.join(folder, pin.file);
  options.note('fetching the archive (177 MB) with Maven');
  await fetchWithMaven(folder, options);
  options.note('checking the archive');
  await verifyArchive(archive, pin.sha256);
  options.signal?.throwIfAborted();
  options.note('unpacking');
  await unpackArchive(archive, pin.home, options.home);
  await rm(folder, { recursive: true, force: true });
}

async function fetchWithMaven(folder: string, options: InstallOptions): Promise<void> {
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
      'Maven is needed once, to fetch Keycloak: install it (Debian: `apt install maven`, macOS: `brew install maven`), or set KEYCLOAK_URL to a Keycloak of your own.',
    );
  }
}

/**
 * Compares an archive with its pin.
 * @throws StartError naming both sums; the archive is removed, so that the next start fetches it again.
 */
export async function verifyArchive(archive: string, sha256: string): Promise<void> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(archive), hash);
  const found = hash.digest('hex');
  if (found === sha256) return;
  await rm(archive, { force: true });
  throw new StartError(
    `${path.basename(archive)} is not the archive that this project pins, and will not be run.\n  pinned: ${sha256}\n  found:  ${found}\nThe mirror or Maven's local repository (~/.m2) holds another file under that name.`,
  );
}

/**
 * Unpacks a zip whose files all lie in one folder, keeping the bits that make files executable. The
 * folder appears at `target` only when everything is unpacked.
 * @throws StartError when an entry would land outside.
 */
export async function unpackArchive(archive: string, inside: string, target: string): Promise<void> {
  const { openPromise } = await import('yauzl');
  const draft = `${target}.new`;
  await rm(draft, { recursive: true, force: true });
  const zip = await openPromise(archive, { lazyEntries: true });
  try {
    for await (const entry of zip.eachEntry()) {
      // yauzl refuses `..`, absolute names and backslashes itself; this is the second line.
      const file = path.resolve(draft, entry.fileName);
      if (!file.startsWith(draft + path.sep))
        throw new StartError(`${archive} holds a path that leads outside.`);
      if (entry.fileName.endsWith('/')) {
        await mkdir(file, { recursive: true });
        continue;
      }
      await mkdir(path.dirname(file), { recursive: true });
      // The upper half holds the Unix mode (APPNOTE 4.4.15).
      const mode = (entry.externalFileAttributes >>> 16) & 0o111 ? 0o755 : 0o644;
      await pipeline(await zip.openReadStreamPromise(entry), createWriteStream(file, { mode }));
    }
  } finally {
    zip.close();
  }
  await rename(path.join(draft, inside), target);
  await rm(draft, { recursive: true, force: true });
}
