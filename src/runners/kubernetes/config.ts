import { z } from 'zod';
import { setupLine } from '../../lib/setup-line.ts';
import {
  isBearerToken,
  isReducedKubeconfig,
  KubeconfigError,
  MAX_TOKEN_LENGTH,
  parseServerUrl,
  readReducedKubeconfig,
  reduceKubeconfig,
  type ClusterAccess,
} from './kubeconfig.ts';
import { IMAGE_PATTERN, NAMESPACE_PATTERN } from './object-names.ts';
import { areCertificates } from './pem.ts';

/** An empty form field counts as left out. */
const optionalText = (maxLength: number) =>
  z
    .string()
    .max(maxLength)
    .nullish()
    .transform((text) => (text === undefined || text?.trim() === '' ? null : text));
/** Trims white space that was copied along. */
const optionalName = (maxLength: number) => optionalText(maxLength).transform((text) => text?.trim() ?? null);

const ConfigSchema = z.strictObject({
  cluster_url: optionalName(256),
  /** PEM; null is the public certificate authorities. */
  ca_cert: optionalText(64 * 1024),
  namespace: optionalName(63),
  service_account_token: optionalName(MAX_TOKEN_LENGTH),
  kubeconfig: optionalText(256 * 1024),
  image: z
    .string()
    .regex(
      IMAGE_PATTERN,
      'Name an image with a shell and your languages, e.g. registry.example.com/python:3.13.',
    ),
  setup: setupLine,
});

/** `connection_config` of a cluster: a kubeconfig, or an address with a token. */
export type KubernetesConfig = z.output<typeof ConfigSchema>;

type ConfigIssue = [member: keyof KubernetesConfig, message: string];

/**
 * Schema of `connection_config`. A kubeconfig is replaced by the output of {@link reduceKubeconfig}, which
 * keeps only the used parts. Parse user input with `parseAsync`, because the YAML parser is loaded on demand.
 * `parse` accepts the output again.
 */
export const kubernetesConfig: z.ZodType<KubernetesConfig> = ConfigSchema.transform((config, context) => {
  const addIssue = (member: keyof KubernetesConfig, message: string) => {
    context.addIssue({ code: 'custom', path: [member], message });
    return z.NEVER;
  };
  const issues = [...(config.kubeconfig === null ? listAddressIssues(config) : listExclusionIssues(config))];
  for (const [member, message] of issues) addIssue(member, message);
  const { kubeconfig } = config;
  if (kubeconfig === null || issues.length > 0) return config;
  if (isReducedKubeconfig(kubeconfig)) return config;
  return reduceKubeconfig(kubeconfig).then(
    (reduced) => ({ ...config, kubeconfig: reduced }),
    (error: unknown) => {
      if (error instanceof KubeconfigError) return addIssue('kubeconfig', error.message);
      throw error;
    },
  );
});

function* listNamespaceIssues({ namespace }: KubernetesConfig): Generator<ConfigIssue> {
  if (namespace !== null && !NAMESPACE_PATTERN.test(namespace))
    yield [
      'namespace',
      'A namespace has up to 63 characters of a-z, 0-9 and -, and does not begin or end with -.',
    ];
}

function* listAddressIssues(config: KubernetesConfig): Generator<ConfigIssue> {
  const { cluster_url: url, ca_cert: ca, service_account_token: token } = config;
  if (url === null || token === null)
    yield [
      url === null ? 'cluster_url' : 'service_account_token',
      'Give a kubeconfig, or an address with a token.',
    ];
  else if (!isServerUrl(url))
    yield ['cluster_url', 'Write the address as https:// with a host, and optionally a port and a path.'];
  if (token !== null && !isBearerToken(token))
    yield ['service_account_token', 'A token is ASCII text without spaces.'];
  if (ca !== null && !areCertificates(ca))
    yield ['ca_cert', 'Paste the certificate authority as PEM text: -----BEGIN CERTIFICATE----- and so on.'];
  if (config.namespace === null) yield ['namespace', 'Name the namespace in which pods may be created.'];
  yield* listNamespaceIssues(config);
}

function* listExclusionIssues(config: KubernetesConfig): Generator<ConfigIssue> {
  for (const member of ['cluster_url', 'ca_cert', 'service_account_token'] as const)
    if (config[member] !== null) yield [member, `The kubeconfig has its own; leave out ${member}.`];
  yield* listNamespaceIssues(config);
}

function isServerUrl(url: string): boolean {
  try {
    return parseServerUrl(url).protocol === 'https:';
  } catch {
    return false;
  }
}

/** Converts a configuration that {@link kubernetesConfig} has parsed. */
export function toClusterAccess(config: KubernetesConfig): ClusterAccess {
  if (config.kubeconfig !== null) {
    const access = readReducedKubeconfig(config.kubeconfig);
    return { ...access, namespace: config.namespace ?? access.namespace };
  }
  return {
    server: parseServerUrl(config.cluster_url ?? ''),
    ca: config.ca_cert,
    namespace: config.namespace ?? '',
    token: config.service_account_token,
    client: null,
  };
}
