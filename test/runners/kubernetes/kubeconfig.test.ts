import { describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import type { z } from 'zod';
import { toClusterAccess, kubernetesConfig } from '../../../src/runners/kubernetes/config.ts';
import { certificate } from '../../support/certificate.ts';
import { evidence } from '../../support/evidence.ts';
import { toPem, craftRsaKey } from '../../support/crafted-private-keys.ts';

const CA = Buffer.from(certificate.cert).toString('base64');
const KEY = Buffer.from(certificate.key).toString('base64');
const TOKEN = `token-${randomUUID()}`;
evidence.registerSecret('access token', TOKEN);
const IMAGE = 'registry.example.com/python:3.13';

/** A typical kubeconfig: YAML with several clusters. Adds lines to the cluster, the user and the context. */
function kubeconfig(
  cluster: string[] = [],
  user: string[] = [`token: ${TOKEN}`],
  context: string[] = [],
): string {
  const indent = (lines: string[]) => lines.map((line) => `      ${line}`).join('\n');
  return `apiVersion: v1
kind: Config
current-context: mine
preferences: {}
contexts:
  - name: other
    context: { cluster: other, user: other }
  - name: mine
    context:
      cluster: mine
      user: mine
${indent(context)}
clusters:
  - name: other
    cluster: { server: "https://other.example.com", insecure-skip-tls-verify: true }
  - name: mine
    cluster:
      server: https://cluster.example.com:6443
${indent(cluster)}
users:
  - name: other
    user: { token: another-token }
  - name: mine
    user:
${indent(user)}
`;
}

async function read(text: string, rest: object = {}) {
  const parsed = await kubernetesConfig.parseAsync({ kubeconfig: text, image: IMAGE, ...rest });
  return toClusterAccess(parsed);
}

async function listIssues(input: object): Promise<string[]> {
  const result = await kubernetesConfig.safeParseAsync(input);
  return (result.error?.issues ?? []).map(
    ({ path, message }: z.core.$ZodIssue) => `${path.join('.')}: ${message}`,
  );
}

describe('a pasted kubeconfig', () => {
  it('provides server, authority, token and namespace of its current context', async () => {
    const access = await read(
      kubeconfig([`certificate-authority-data: ${CA}`], [`token: ${TOKEN}`], ['namespace: jobs']),
    );
    expect({ ...access, server: access.server.href }).toEqual({
      server: 'https://cluster.example.com:6443/',
      ca: certificate.cert,
      namespace: 'jobs',
      token: TOKEN,
      client: null,
    });
  });

  it('provides a certificate and its key if there is no token', async () => {
    const user = [`client-certificate-data: ${CA}`, `client-key-data: ${KEY}`];
    const { token, client } = await read(kubeconfig([], user));
    expect(token).toBeNull();
    expect(client).toEqual({ cert: certificate.cert, key: certificate.key });
  });

  it('uses the namespace default unless it or the configuration names one', async () => {
    expect((await read(kubeconfig())).namespace).toBe('default');
    expect((await read(kubeconfig(), { namespace: 'chosen' })).namespace).toBe('chosen');
  });

  it('is stored without unused clusters and users, and parses again unchanged', async () => {
    const config = await kubernetesConfig.parseAsync({ kubeconfig: kubeconfig(), image: IMAGE });
    expect(config.kubeconfig).not.toContain('other');
    expect(kubernetesConfig.parse(config)).toEqual(config);
  });

  it('may be JSON', async () => {
    const mine = { name: 'mine' };
    const json = JSON.stringify({
      kind: 'Config',
      'current-context': 'mine',
      contexts: [{ ...mine, context: { cluster: 'mine', user: 'mine' } }],
      clusters: [{ ...mine, cluster: { server: 'https://cluster.example.com' } }],
      users: [{ ...mine, user: { token: TOKEN } }],
    });
    expect((await read(json)).token).toBe(TOKEN);
  });

  const EXPORT = /paste the output of `kubectl config view --raw --minify --flatten`/;
  const ACCOUNT_TOKEN = /use the token of a service account/;

  it.each([
    ['certificate-authority', '/etc/passwd', EXPORT],
    ['proxy-url', 'http://proxy.example.com', /use an address at which the app reaches the cluster/],
    ['insecure-skip-tls-verify', 'true', /add certificate-authority-data/],
    ['tls-server-name', 'other.example.com', /use an address that the certificate names/],
  ])('is refused for %s in its cluster, with the next step', async (name, value, nextStep) => {
    const issues = await listIssues({ kubeconfig: kubeconfig([`${name}: ${value}`]), image: IMAGE });
    expect(issues).toEqual([expect.stringContaining(`kubeconfig: The kubeconfig uses "${name}"`)]);
    expect(issues.join()).toMatch(nextStep);
  });

  it.each([
    [
      'exec',
      '{ apiVersion: client.authentication.k8s.io/v1, command: touch, args: [/tmp/owned] }',
      ACCOUNT_TOKEN,
    ],
    ['auth-provider', '{ name: gcp, config: { cmd-path: /bin/touch } }', ACCOUNT_TOKEN],
    ['tokenFile', '/etc/passwd', EXPORT],
    ['client-certificate', '/etc/passwd', EXPORT],
    ['client-key', '/etc/passwd', EXPORT],
    ['as', 'admin', ACCOUNT_TOKEN],
    ['as-uid', '"0"', ACCOUNT_TOKEN],
    ['as-groups', '[system:masters]', ACCOUNT_TOKEN],
    ['as-user-extra', '{ scopes: [all] }', ACCOUNT_TOKEN],
    ['username', 'admin', ACCOUNT_TOKEN],
    ['password', 'admin', ACCOUNT_TOKEN],
  ])(
    'is refused for %s in its user, also beside a token, with the next step',
    async (name, value, nextStep) => {
      const user = [`token: ${TOKEN}`, `${name}: ${value}`];
      const issues = await listIssues({ kubeconfig: kubeconfig([], user), image: IMAGE });
      expect(issues).toEqual([expect.stringContaining(`kubeconfig: The kubeconfig uses "${name}"`)]);
      expect(issues.join()).toMatch(nextStep);
    },
  );

  const accepted: [why: string, text: string][] = [
    ['no kind', kubeconfig().replace('kind: Config\n', '')],
    ['an empty kind', kubeconfig().replace('kind: Config\n', 'kind: ""\n')],
    ['a kind without a value', kubeconfig().replace('kind: Config\n', 'kind:\n')],
    ['an empty authority', kubeconfig(['certificate-authority-data: ""'])],
    ['an authority without a value', kubeconfig(['certificate-authority-data:'])],
    ['an empty proxy-url', kubeconfig(['proxy-url: ""'])],
    ['empty file names', kubeconfig(['certificate-authority: ""'], [`token: ${TOKEN}`, 'tokenFile: ""'])],
    ['no program', kubeconfig([], [`token: ${TOKEN}`, 'exec: null', 'auth-provider: null'])],
    [
      'an empty certificate beside a token',
      kubeconfig([], [`token: ${TOKEN}`, 'client-certificate-data: ""']),
    ],
    ['no impersonation', kubeconfig([], [`token: ${TOKEN}`, 'as: ""', 'as-groups: []'])],
    ['insecure-skip-tls-verify: false', kubeconfig(['insecure-skip-tls-verify: false'])],
    ['an empty namespace', kubeconfig([], undefined, ['namespace: ""'])],
    ['a token with a line break at its end', kubeconfig([], ['token: |', `  ${TOKEN}`])],
    ['an unknown member of its cluster', kubeconfig(['future-option: value-of-it'])],
    ['an unknown member of its user', kubeconfig([], [`token: ${TOKEN}`, 'future-option: { a: [1] }'])],
    ['an unknown member of its context', kubeconfig([], undefined, ['future-option: 1'])],
    [
      'an unknown member',
      `${kubeconfig()}future-option: value-of-it
`,
    ],
    ['another user without a value', kubeconfig().replace('user: { token: another-token }', 'user: null')],
    [
      'another cluster without a value',
      kubeconfig().replace(/cluster: \{ server: "https:\/\/other.*\}/, 'cluster: null'),
    ],
    [
      'another context without a value',
      kubeconfig().replace('context: { cluster: other, user: other }', 'context:'),
    ],
    [
      'another user that runs a program',
      kubeconfig().replace('user: { token: another-token }', 'user: { exec: { command: touch } }'),
    ],
    ['another entry without a name', kubeconfig().replace('  - name: other\n    user:', '  - user:')],
  ];
  it.each(accepted)('may have %s', async (_why, text) => {
    const config = await kubernetesConfig.parseAsync({ kubeconfig: text, image: IMAGE });
    expect(toClusterAccess(config)).toMatchObject({
      token: TOKEN,
      client: null,
      ca: null,
      namespace: 'default',
    });
    expect(config.kubeconfig).not.toMatch(/value-of-it|touch|another-token|future-option/);
  });

  const names = ['clusters', 'users', 'contexts'];
  it.each(names)('may lack entries of other contexts in %s', async (name) => {
    const others = new RegExp(`(${name}:\\n)  - name: other\\n.*\\n`);
    const text = kubeconfig().replace(others, '$1');
    expect(text).not.toBe(kubeconfig());
    expect((await read(text)).token).toBe(TOKEN);
  });

  it.each([
    ['certificate-authority-data', kubeconfig(['certificate-authority-data: DATA+OMITTED'])],
    ['token', kubeconfig([], ['token: REDACTED'])],
    [
      'client-certificate-data',
      kubeconfig([], ['client-certificate-data: DATA+OMITTED', 'client-key-data: DATA+OMITTED']),
    ],
  ])('is refused with the command to use when kubectl has left out %s', async (name, text) => {
    expect(await listIssues({ kubeconfig: text, image: IMAGE })).toEqual([
      expect.stringMatching(new RegExp(`lacks its secrets \\("${name}".*--raw --minify --flatten`)),
    ]);
  });

  it.each([
    ['a certificate authority', kubeconfig(['certificate-authority: /home/a/.minikube/ca.crt'])],
    ['a client certificate', kubeconfig([], ['client-certificate: /home/a/.minikube/client.crt'])],
    ['a key', kubeconfig([], ['client-key: /home/a/.minikube/client.key'])],
    ['a token', kubeconfig([], ['tokenFile: /var/run/token'])],
  ])('is refused with the command that includes the file, for the file of %s', async (_what, text) => {
    expect(await listIssues({ kubeconfig: text, image: IMAGE })).toEqual([
      expect.stringContaining('`kubectl config view --raw --minify --flatten`'),
    ]);
  });

  const invalid: [why: string, text: string][] = [
    ['text that is not YAML', '{{{'],
    ['YAML that is not a kubeconfig', 'kind: Pod'],
    ['thousands of brackets', '['.repeat(50_000)],
    ['thousands of nested lists', '- '.repeat(60_000)],
    ['more than 128 KB', `${kubeconfig()}# ${'x'.repeat(130 * 1024)}`],
    ['a server without TLS', kubeconfig().replace('https://cluster', 'http://cluster')],
    [
      'a server with a user and a query',
      kubeconfig().replace('cluster.example.com', 'u:p@cluster.example.com'),
    ],
    ['a namespace with a path', kubeconfig([], undefined, ['namespace: ../kube-system'])],
    ['a token with a line break', kubeconfig([], ['token: "a\\r\\nx-header: b"'])],
    ['a user without credentials', kubeconfig([], ['extensions: []'])],
    ['an authority that is not a certificate', kubeconfig(['certificate-authority-data: bm9uZQ=='])],
    ['a certificate without its key', kubeconfig([], [`client-certificate-data: ${CA}`])],
    ['an invalid key', kubeconfig([], [`client-certificate-data: ${CA}`, 'client-key-data: bm9uZQ=='])],
    ['a namespace that is not text', kubeconfig([], undefined, ['namespace: [a]'])],
    ['a token that is not text', kubeconfig([], ['token: { a: b }'])],
    ['a context without a user', kubeconfig().replace('      user: mine\n', '')],
    ['lists without values', kubeconfig().replace(/clusters:[^]*/, 'clusters:\nusers:\n')],
    ['a missing current context', kubeconfig().replace('current-context: mine', 'current-context: none')],
    ['a JavaScript function', `${kubeconfig()}extensions: !!js/function 'function () { throw 1 }'\n`],
  ];
  for (const [why, text] of invalid) {
    it(`is refused for ${why}`, async () => {
      const issues = await listIssues({ kubeconfig: text, image: IMAGE });
      expect(issues).toHaveLength(1);
      expect(issues[0]).toMatch(/^kubeconfig: .*kubeconfig|^kubeconfig: .*data/);
    });
  }

  it('is refused for a key that is expensive to use', async () => {
    const key = Buffer.from(toPem('RSA PRIVATE KEY', craftRsaKey(16_384))).toString('base64');
    const huge = kubeconfig([], [`client-certificate-data: ${CA}`, `client-key-data: ${key}`]);
    expect(await listIssues({ kubeconfig: huge, image: IMAGE })).toEqual([
      expect.stringMatching(/^kubeconfig: .*8192 bits/),
    ]);
  });

  it('cannot expand by aliases or change the prototype of objects', async () => {
    const levels = Array.from({ length: 20 }, (_, level) => {
      const before = level === 0 ? '"x"' : `*l${level - 1}`;
      return `l${level}: &l${level} [${Array.from({ length: 10 }, () => before).join(', ')}]`;
    });
    const bomb = `${levels.join('\n')}\n__proto__: { polluted: true }\n`;
    expect((await read(kubeconfig() + bomb)).token).toBe(TOKEN);
    const inPlace = kubeconfig().replace('clusters:', `${bomb}clusters: *l19\nunused:`);
    expect(await listIssues({ kubeconfig: inPlace, image: IMAGE })).toEqual([
      expect.stringContaining('is not in the kubeconfig'),
    ]);
    expect(({} as { polluted?: true }).polluted).toBeUndefined();
  });

  it('is read quickly when aliases repeat a large map', async () => {
    const members = Array.from({ length: 3_000 }, (_, index) => `k${index}: ""`).join(', ');
    const aliases = Array.from({ length: 8_000 }, () => '*large').join(', ');
    const text = kubeconfig().replace(
      'clusters:',
      `large: &large {${members}}\nclusters: [${aliases}]\nunused:`,
    );
    const startMs = performance.now();
    expect(await listIssues({ kubeconfig: text, image: IMAGE })).toEqual([
      expect.stringContaining('is not in the kubeconfig'),
    ]);
    // It took minutes and gigabytes before only the named entry was copied.
    expect(performance.now() - startMs).toBeLessThan(5_000);
  });
});

describe('kubernetesConfig', () => {
  const good = {
    cluster_url: 'https://cluster.example.com:6443',
    ca_cert: certificate.cert,
    namespace: 'jobs',
    service_account_token: TOKEN,
    image: IMAGE,
  };

  it('accepts an address with a token, and trims the token', () => {
    const config = kubernetesConfig.parse({ ...good, service_account_token: ` ${TOKEN}\n` });
    expect(config).toEqual({ ...good, kubeconfig: null, setup: null });
  });

  it('uses the public authorities if none is given', () => {
    expect(toClusterAccess(kubernetesConfig.parse({ ...good, ca_cert: '' })).ca).toBeNull();
  });

  it('keeps the path of an address, which some clusters need', () => {
    const cluster_url = 'https://rancher.example.com/k8s/clusters/c-1';
    expect(toClusterAccess(kubernetesConfig.parse({ ...good, cluster_url })).server.href).toBe(cluster_url);
  });

  const bad: [why: string, member: string, change: object][] = [
    ['an address without TLS', 'cluster_url', { cluster_url: 'http://cluster.example.com' }],
    ['an address with a query', 'cluster_url', { cluster_url: 'https://cluster.example.com/?a=b' }],
    ['no address', 'cluster_url', { cluster_url: null }],
    ['no token', 'service_account_token', { service_account_token: null }],
    ['a token of several words', 'service_account_token', { service_account_token: 'two words' }],
    ['no namespace', 'namespace', { namespace: undefined }],
    ['a namespace with shell text', 'namespace', { namespace: 'a;b' }],
    ['a namespace with a path', 'namespace', { namespace: '../../nodes' }],
    ['a namespace in capitals', 'namespace', { namespace: 'Jobs' }],
    ['an authority that is not a certificate', 'ca_cert', { ca_cert: 'none' }],
    ['half a certificate', 'ca_cert', { ca_cert: certificate.cert.slice(0, 200) }],
    ['no image', 'image', { image: '' }],
    ['an image with shell text', 'image', { image: 'python; touch /tmp/x' }],
    ['a kubeconfig beside an address', 'cluster_url', { kubeconfig: kubeconfig() }],
    ['an undeclared member', '', { exec: 'x' }],
  ];
  for (const [why, member, change] of bad) {
    it(`refuses ${why}, and names the member`, async () => {
      const issues = await listIssues({ ...good, ...change });
      expect(issues[0]?.split(': ')[0]).toBe(member);
      expect(issues.join()).not.toContain(TOKEN);
    });
  }
});
