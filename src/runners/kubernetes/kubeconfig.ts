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

const RUNS_COMMAND = 'runs a program here to sign in';
const NAMES_FILE = 'names a file of the machine it is used on';
const IMPERSONATES = 'impersonates another user';

/**
 * Valid members that are refused: programs, files of this machine, other network routes, and disabled checks.
 * Each has a reason, which the error message gives.
 */
const REFUSED_FOR_CLUSTER: Readonly<Record<string, string>> = {
  'certificate-authority': `${NAMES_FILE}; put the text into certificate-authority-data`,
  'proxy-url': 'would send the connection through a proxy',
  'insecure-skip-tls-verify': 'would send the credentials to an unverified server',
  'tls-server-name': 'would accept the certificate of another name',
};
const REFUSED_FOR_USER: Readonly<Record<string, string>> = {
  exec: `${RUNS_COMMAND}; use the token of a service account`,
  'auth-provider': `${RUNS_COMMAND}; use the token of a service account`,
  tokenFile: `${NAMES_FILE}; put the text into token`,
  'client-certificate': `${NAMES_FILE}; put the text into client-certificate-data`,
  'client-key': `${NAMES_FILE}; put the text into client-key-data`,
  as: IMPERSONATES,
  'as-uid': IMPERSONATES,
  'as-groups': IMPERSONATES,
  'as-user-extra': IMPERSONATES,
  username: 'is a way to sign in that Kubernetes no longer has',
  password: 'is a way to sign in that Kubernetes no longer has',
};

const nonEmptyText = z.string().min(1);
const namedList = <Shape extends z.ZodType>(member: string, shape: Shape) =>
  z.array(z.looseObject({ name: nonEmptyText, [member]: shape }));

const MemberMap = z.record(z.string(), z.unknown());
const KubeconfigSchema = z.looseObject({
  kind: z.literal('Config'),
  'current-context': nonEmptyText,
  clusters: namedList('cluster', MemberMap),
  users: namedList('user', MemberMap),
  contexts: namedList('context', MemberMap),
});
const KubeconfigContext = z.looseObject({
  cluster: nonEmptyText,
  user: nonEmptyText,
  namespace: nonEmptyText.optional(),
});
const KubeconfigCluster = z.strictObject({
  server: nonEmptyText,
  'certificate-authority-data': nonEmptyText.optional(),
  // Ignored. Tools of clusters write them.
  'disable-compression': z.boolean().optional(),
  extensions: z.unknown().optional(),
});
const KubeconfigUser = z.strictObject({
  token: nonEmptyText.optional(),
  'client-certificate-data': nonEmptyText.optional(),
  'client-key-data': nonEmptyText.optional(),
  extensions: z.unknown().optional(),
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
    throw new KubeconfigError(
      'This is not a kubeconfig: paste the output of `kubectl config view --raw --minify`.',
    );
  const { data } = config;
  const context = KubeconfigContext.safeParse(findMember(data.contexts, data['current-context'], 'context'));
  if (!context.success)
    throw new KubeconfigError('The kubeconfig has no current context with a cluster and a user.');
  const cluster = findMember(data.clusters, context.data.cluster, 'cluster');
  const user = findMember(data.users, context.data.user, 'user');
  if (cluster === undefined || user === undefined)
    throw new KubeconfigError('The cluster or the user of the current context is not in the kubeconfig.');
  refuseMembers(cluster, REFUSED_FOR_CLUSTER);
  refuseMembers(user, REFUSED_FOR_USER);
  return {
    ...readCluster(parseMembers(KubeconfigCluster, cluster)),
    ...readUser(parseMembers(KubeconfigUser, user)),
    namespace: readNamespace(context.data.namespace ?? 'default'),
  };
}

function findMember(list: readonly Record<string, unknown>[], name: string, member: string) {
  return list.find((entry) => entry['name'] === name)?.[member] as Record<string, unknown> | undefined;
}

function refuseMembers(members: Record<string, unknown>, refused: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(members)) {
    const reason = Object.hasOwn(refused, name) ? refused[name] : undefined;
    if (reason === undefined || (name === 'insecure-skip-tls-verify' && value === false)) continue;
    throw new KubeconfigError(`The kubeconfig uses "${name}", which is not accepted: it ${reason}.`);
  }
}

function parseMembers<Shape extends z.ZodType>(
  shape: Shape,
  members: Record<string, unknown>,
): z.output<Shape> {
  const { 'insecure-skip-tls-verify': _false, ...rest } = members;
  const result = shape.safeParse(rest);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  // The name is part of the pasted text. It is shown only if it looks like the name of a member.
  const name = issue?.code === 'unrecognized_keys' ? issue.keys[0] : issue?.path[0];
  const shown = typeof name === 'string' && /^[A-Za-z-]{1,40}$/.test(name) ? `"${name}"` : 'a member';
  throw new KubeconfigError(`The kubeconfig has ${shown} in a form that is not accepted.`);
}

function readCluster(cluster: z.output<typeof KubeconfigCluster>): Pick<ClusterAccess, 'server' | 'ca'> {
  const data = cluster['certificate-authority-data'];
  const ca = data === undefined ? null : decodePem(data);
  if (ca !== null && !areCertificates(ca))
    throw new KubeconfigError('certificate-authority-data is not a certificate in base64.');
  return { server: readServer(cluster.server), ca };
}

function readUser(user: z.output<typeof KubeconfigUser>): Pick<ClusterAccess, 'token' | 'client'> {
  const { token, 'client-certificate-data': cert, 'client-key-data': key } = user;
  if (token !== undefined) {
    if (!isBearerToken(token)) throw new KubeconfigError('The token of the kubeconfig is not valid.');
    return { token, client: null };
  }
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
