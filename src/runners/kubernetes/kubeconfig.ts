import { z } from 'zod';
import { parseEndpoint } from '../../lib/net/egress.ts';
import { parseJson } from '../../lib/json.ts';
import { NAMESPACE_PATTERN } from './object-names.ts';
import { areCertificates, findKeyPairIssue } from './pem.ts';

/** Address and credentials for one namespace of one cluster, with secrets in plaintext. */
export interface ClusterAccess {
  /** https. Its path is the prefix of every request path. */
  server: URL;
  /** PEM. Null is the public certificate authorities. */
  ca: string | null;
  namespace: string;
  /** A service account's token, or any bearer token. Null if a client certificate is used. */
  token: string | null;
  /** PEM. */
  client: { cert: string; key: string } | null;
}

/** Why a kubeconfig is refused. The message is for its owner. */
export class KubeconfigError extends Error {
  override readonly name = 'KubeconfigError';
}

/** Far more than the certificates of three authorities, a client certificate and its key need. */
const MAX_KUBECONFIG_BYTES = 128 * 1024;
/** Longer tokens do not fit into the headers that API servers accept. */
export const MAX_TOKEN_LENGTH = 12 * 1024;

const EXPORT_COMMAND = '`kubectl config view --raw --minify --flatten`';
const RUNS_COMMAND = 'runs a program here to sign in; use the token of a service account';
const NAMES_FILE = `names a file of the machine it is used on; paste the output of ${EXPORT_COMMAND}, which holds the text`;
const IMPERSONATES =
  'impersonates another user; use the token of a service account that has the rights itself';
const OBSOLETE = 'is a way to sign in that Kubernetes no longer has; use the token of a service account';

/**
 * Members of the current context that are refused: programs, files of this machine, other network routes, and disabled
 * checks. Each has a reason and a next step, which the error message gives. Other members are ignored, as kubectl does.
 */
const REFUSED_FOR_CLUSTER: Readonly<Record<string, string>> = {
  'certificate-authority': NAMES_FILE,
  'proxy-url':
    'would send the connection through a proxy; remove it, and use an address at which the app reaches the cluster directly',
  'insecure-skip-tls-verify':
    'would send the credentials to an unverified server; remove it, and add certificate-authority-data',
  'tls-server-name':
    'would accept the certificate of another name; remove it, and use an address that the certificate names',
};
const REFUSED_FOR_USER: Readonly<Record<string, string>> = {
  exec: RUNS_COMMAND,
  'auth-provider': RUNS_COMMAND,
  tokenFile: NAMES_FILE,
  'client-certificate': NAMES_FILE,
  'client-key': NAMES_FILE,
  as: IMPERSONATES,
  'as-uid': IMPERSONATES,
  'as-groups': IMPERSONATES,
  'as-user-extra': IMPERSONATES,
  username: OBSOLETE,
  password: OBSOLETE,
};
/** What `kubectl config view` prints in place of secrets without `--raw`. */
const OMITTED = ['DATA+OMITTED', 'REDACTED'];

const MemberMap = z.record(z.string(), z.unknown());
/** Entries of other contexts may have any form, so the lists are not checked. */
const List = z.array(z.unknown()).nullish();
const KubeconfigSchema = z.looseObject({
  kind: z.literal(['Config', '']).nullish(),
  'current-context': z.string().nullish(),
  clusters: List,
  users: List,
  contexts: List,
});

/**
 * Parses a pasted kubeconfig. A client library would run its programs and read its files (`exec`,
 * `auth-provider`, file paths); this function does not. Only the current context is read.
 * @returns the used parts as a new kubeconfig in JSON, without the credentials of other clusters.
 * @throws KubeconfigError
 */
export async function reduceKubeconfig(source: string): Promise<string> {
  if (Buffer.byteLength(source) > MAX_KUBECONFIG_BYTES)
    throw new KubeconfigError('The kubeconfig is over 128 KB.');
  return writeKubeconfig(readAccess(await parseYaml(source)));
}

/** True for output of {@link reduceKubeconfig}, byte for byte. */
export function isReducedKubeconfig(source: string): boolean {
  try {
    return writeKubeconfig(readReducedKubeconfig(source)) === source;
  } catch {
    return false;
  }
}

/** Parses output of {@link reduceKubeconfig}. @throws KubeconfigError for anything else. */
export function readReducedKubeconfig(json: string): ClusterAccess {
  return readAccess(parseJson(json));
}

function writeKubeconfig({ server, ca, namespace, token, client }: ClusterAccess): string {
  const base64 = (pem: string | undefined) =>
    pem === undefined ? undefined : Buffer.from(pem).toString('base64');
  const name = 'current';
  const user = {
    token: token ?? undefined,
    'client-certificate-data': base64(client?.cert),
    'client-key-data': base64(client?.key),
  };
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': name,
    clusters: [
      { name, cluster: { server: server.href, 'certificate-authority-data': base64(ca ?? undefined) } },
    ],
    users: [{ name, user }],
    contexts: [{ name, context: { cluster: name, user: name, namespace } }],
  });
}

function readAccess(document: unknown): ClusterAccess {
  const config = KubeconfigSchema.safeParse(document);
  if (!config.success)
    throw new KubeconfigError(`This is not a kubeconfig: paste the output of ${EXPORT_COMMAND}.`);
  const { data } = config;
  const context = findMembers(data.contexts, data['current-context'], 'context');
  const [clusterName, userName] = [readText(context, 'cluster'), readText(context, 'user')];
  if (context === undefined || clusterName === undefined || userName === undefined)
    throw new KubeconfigError('The kubeconfig has no current context with a cluster and a user.');
  const cluster = findMembers(data.clusters, clusterName, 'cluster');
  const user = findMembers(data.users, userName, 'user');
  if (cluster === undefined || user === undefined)
    throw new KubeconfigError('The cluster or the user of the current context is not in the kubeconfig.');
  refuseMembers(cluster, REFUSED_FOR_CLUSTER);
  refuseMembers(user, REFUSED_FOR_USER);
  return {
    ...readCluster(cluster),
    ...readUser(user),
    namespace: readNamespace(readText(context, 'namespace') ?? 'default'),
  };
}

type Members = Readonly<Record<string, unknown>>;

/** The members of the entry with this name, without the empty ones, which count as absent. */
function findMembers(list: unknown, name: unknown, member: string): Members | undefined {
  // Aliases can repeat a large map many times, so that only the one in question may be copied.
  const entry: unknown = Array.isArray(list) ? list.find((each) => hasName(each, name)) : undefined;
  const members = MemberMap.safeParse(MemberMap.safeParse(entry).data?.[member]).data;
  return members && Object.fromEntries(Object.entries(members).filter(([, value]) => !isEmpty(value)));
}

function hasName(entry: unknown, name: unknown): boolean {
  return typeof entry === 'object' && entry !== null && 'name' in entry && entry.name === name;
}

function isEmpty(value: unknown): boolean {
  return value == null || value === '' || value === false || (Array.isArray(value) && value.length === 0);
}

function refuseMembers(members: Members, refused: Readonly<Record<string, string>>): void {
  for (const name of Object.keys(members)) {
    const reason = Object.hasOwn(refused, name) ? refused[name] : undefined;
    if (reason !== undefined)
      throw new KubeconfigError(`The kubeconfig uses "${name}", which is not accepted: it ${reason}.`);
  }
}

/** @returns undefined for a member that is absent. @throws KubeconfigError for one that is not text. */
function readText(members: Members | undefined, name: string): string | undefined {
  const value = members?.[name];
  if (value === undefined) return undefined;
  if (typeof value !== 'string') throw new KubeconfigError(`"${name}" of the kubeconfig is not text.`);
  if (OMITTED.includes(value))
    throw new KubeconfigError(
      `The kubeconfig lacks its secrets ("${name}" is left out): paste the output of ${EXPORT_COMMAND}.`,
    );
  return value;
}

function readCluster(cluster: Members): Pick<ClusterAccess, 'server' | 'ca'> {
  const data = readText(cluster, 'certificate-authority-data');
  const ca = data === undefined ? null : decodePem(data);
  if (ca !== null && !areCertificates(ca))
    throw new KubeconfigError('certificate-authority-data is not a certificate in base64.');
  return { server: readServer(readText(cluster, 'server') ?? ''), ca };
}

function readUser(user: Members): Pick<ClusterAccess, 'token' | 'client'> {
  // Tools that read it from a file leave the line break at its end.
  const token = readText(user, 'token')?.trim();
  if (token !== undefined) {
    if (!isBearerToken(token)) throw new KubeconfigError('The token of the kubeconfig is not valid.');
    return { token, client: null };
  }
  const [cert, key] = [readText(user, 'client-certificate-data'), readText(user, 'client-key-data')];
  if (cert === undefined || key === undefined)
    throw new KubeconfigError(
      'The user of the kubeconfig has neither a token nor a certificate with its key.',
    );
  const client = { cert: decodePem(cert), key: decodePem(key) };
  const issue = findKeyPairIssue(client.cert, client.key);
  if (issue !== undefined) throw new KubeconfigError(issue);
  return { token: null, client };
}

function readServer(address: string): URL {
  try {
    return parseServerUrl(address);
  } catch {
    throw new KubeconfigError('The server of the kubeconfig is not https:// with a host and perhaps a port.');
  }
}

function readNamespace(name: string): string {
  if (!NAMESPACE_PATTERN.test(name))
    throw new KubeconfigError('The namespace of the kubeconfig is not a valid name.');
  return name;
}

/** @throws AppError, or Error for an address without TLS. */
export function parseServerUrl(address: string): URL {
  const url = parseEndpoint(address);
  if (url.protocol !== 'https:') throw new Error('not https');
  return url;
}

/** True for text that is valid in an `authorization` header. */
export function isBearerToken(token: string): boolean {
  return token.length <= MAX_TOKEN_LENGTH && /^[\x21-\x7e]+$/.test(token);
}

function decodePem(base64: string): string {
  return Buffer.from(base64, 'base64').toString('latin1');
}

/**
 * Parses YAML or JSON. JSON is parsed by Node alone.
 * The YAML parser is that of the Kubernetes client, loaded on first use. It builds plain data only. Aliases
 * become references, not copies, so that a text cannot grow by them. Callers must only visit
 * declared members.
 * @returns undefined for a text that is neither.
 */
async function parseYaml(text: string): Promise<unknown> {
  const json = parseJson(text);
  if (json !== undefined) return json;
  const { loadYaml } = await import('@kubernetes/client-node/dist/yaml.js');
  try {
    return loadYaml<unknown>(text);
  } catch {
    // Also for thousands of nested lists: the parser limits the depth.
    return undefined;
  }
}
