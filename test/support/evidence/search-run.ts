import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { signInAsBootstrapAdmin } from '../../../src/dev/quickstart/keycloak/realm-setup.ts';
import { isProcessRunning } from '../../../src/dev/quickstart/processes.ts';
import { TEST_DATA_DIR, type ServersInUse } from '../postgres-and-keycloak.ts';
import { dumpDatabases, dumpRealm, decryptSessionTokens, SESSIONS } from './dumps.ts';
import { DATABASES, LOGS, RESPONSES, Secret, SECRETS } from './kinds.ts';
import { createSearch, type Hit, type Search } from './search.ts';

const EVIDENCE_DIR = path.join(TEST_DATA_DIR, 'evidence');
const REALMS = ['ops-center', 'ops-center-vault'];

/** The hits of a search, and the amount of searched data. */
export interface SearchReport {
  secrets: number;
  bytes: Record<'logs' | 'responses' | 'databases' | 'keycloak' | 'server logs', number>;
  databases: number;
  hits: readonly Hit[];
  tookMs: number;
}

type Servers = Pick<ServersInUse, 'superuserUrl' | 'keycloakUrl' | 'adminPassword'>;

/** Creates the folder for a run's evidence, and deletes the folders of ended runs. */
export function createEvidenceFolder(): string {
  mkdirSync(EVIDENCE_DIR, { recursive: true, mode: 0o700 });
  for (const pid of readdirSync(EVIDENCE_DIR))
    if (!isProcessRunning(Number(pid))) rmSync(path.join(EVIDENCE_DIR, pid), { recursive: true });
  const folder = path.join(EVIDENCE_DIR, String(process.pid));
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return folder;
}

/**
 * Checks at the end of a run that no secret was written anywhere.
 * @throws Error that names each hit by kind and place; the evidence is kept then.
 */
export async function assertNoSecrets(
  folder: string,
  servers: Servers,
  say: (text: string) => void,
): Promise<void> {
  const report = await searchRun(folder, servers, ['keycloak.log', 'postgres.log']);
  say(summaryOf(report));
  if (report.hits.length > 0) throw new Error(describeHits(report.hits, folder));
  assertNotEmpty(folder, report);
  rmSync(folder, { recursive: true });
}

/**
 * Searches a run's logs, responses and databases and both realms for the run's secrets.
 * @param serverLogs names of log files in the test servers' folder
 */
export async function searchRun(
  folder: string,
  servers: Servers,
  serverLogs: readonly string[] = [],
): Promise<SearchReport> {
  const startedMs = performance.now();
  const dump: { place: string; text: string }[] = [];
  const databases = linesOf(folder, DATABASES);
  await dumpDatabases(servers.superuserUrl, databases, (place, text) => dump.push({ place, text }));
  const sessions = dump.filter(({ place }) => place.endsWith(SESSIONS)).map(({ text }) => text);
  const secrets = withTokens(readSecrets(folder), sessions);
  const search = createSearch(secrets);
  const admin = await signInAsBootstrapAdmin(servers.keycloakUrl, servers.adminPassword);
  const bytes = {
    logs: await measured(search, () => searchFiles(search, folder, LOGS)),
    responses: await measured(search, () => searchFiles(search, folder, RESPONSES)),
    databases: await measured(search, () => {
      for (const { place, text } of dump) search.text(place, text);
    }),
    keycloak: await measured(search, async () => {
      for (const realm of REALMS) await dumpRealm(admin, realm, (place, text) => search.text(place, text));
    }),
    'server logs': await measured(search, () => searchServerLogs(search, serverLogs)),
  };
  const { hits } = search;
  const tookMs = performance.now() - startedMs;
  return { secrets: secrets.length, bytes, databases: databases.length, hits, tookMs };
}

async function measured(search: Search, work: () => Promise<void> | void): Promise<number> {
  const before = search.bytes;
  await work();
  return search.bytes - before;
}

async function searchFiles(search: Search, folder: string, kind: string): Promise<void> {
  for (const name of filesOf(folder, kind)) await search.file(name, path.join(folder, name));
}

async function searchServerLogs(search: Search, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const file = path.join(TEST_DATA_DIR, name);
    if (existsSync(file)) await search.file(name, file);
  }
}

function readSecrets(folder: string): Secret[] {
  const all = linesOf(folder, SECRETS).map((line) => Secret.parse(JSON.parse(line)));
  return [...new Map(all.map((one) => [one.value, one])).values()];
}

function withTokens(secrets: readonly Secret[], sessions: readonly string[]): Secret[] {
  const keys = secrets.filter(({ kind }) => kind === 'encryption key').map(({ value }) => value);
  return [...secrets, ...decryptSessionTokens(sessions, keys)];
}

function linesOf(folder: string, kind: string): string[] {
  return filesOf(folder, kind).flatMap((name) =>
    readFileSync(path.join(folder, name), 'utf8').trimEnd().split('\n'),
  );
}

function filesOf(folder: string, kind: string): string[] {
  return readdirSync(folder).filter((name) => name.startsWith(`${kind}-`));
}

/** A search without data finds nothing: if an app ran, there must be logs and responses. */
function assertNotEmpty(folder: string, { bytes }: SearchReport): void {
  const hasAppRun = readSecrets(folder).some(({ kind }) => kind === 'session secret');
  const isMissing = [bytes.logs, bytes.responses, bytes.databases, bytes.keycloak].includes(0);
  if (hasAppRun && isMissing)
    throw new Error(`The search for secrets had no data to search: ${JSON.stringify(bytes)}`);
}

function summaryOf({ secrets, bytes, databases, hits, tookMs }: SearchReport): string {
  const sizes = Object.entries(bytes).map(([name, size]) => `${name} ${(size / 1e6).toFixed(2)}`);
  const seconds = (tookMs / 1000).toFixed(1);
  return `searched for ${secrets} secrets in MB: ${sizes.join(', ')}; ${databases} databases; hits: ${hits.length} (${seconds} s)`;
}

function describeHits(hits: readonly Hit[], folder: string): string {
  const lines = hits.map(
    ({ kind, form, place, offset }) => `  ${kind}, ${form}: ${place}, at byte ${offset}`,
  );
  return `Secrets were found (evidence: ${folder}):\n${lines.join('\n')}`;
}
