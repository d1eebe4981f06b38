import { describe, expect, it } from '@jest/globals';
import { createDockerRunner } from '../../../src/runners/docker/index.ts';
import { dockerConfig, toEngineConnection } from '../../../src/runners/docker/config.ts';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { createLog } from '../../../src/lib/log.ts';
import { describeOn, dockerHost } from '../../support/hosts.ts';
import { certificate } from '../../support/certificate.ts';
import { toPem, craftRsaKey } from '../../support/crafted-private-keys.ts';
import { localDialer } from '../../lib/ssh/servers.ts';

const SERVER = { host: 'srv_1', image: 'busybox' };
const TLS = { host: 'tcp://engine.test:2376', client_cert: certificate.cert, client_key: certificate.key };

/** The issues of a configuration as pairs of member and message. Empty for a valid one. */
function listIssues(config: Record<string, unknown>): [string, string][] {
  const parsed = dockerConfig.safeParse(config);
  return (parsed.error?.issues ?? []).map(({ path, message }) => [path.join('.'), message]);
}

const volumeIssue = (source: string, target = '/data') =>
  listIssues({ ...SERVER, volumes: [{ source, target }] })
    .map(([, message]) => message)
    .join();

describe('dockerConfig', () => {
  it('accepts tcp:// with client certificates, or the id of an SSH server', () => {
    expect(toEngineConnection(dockerConfig.parse(TLS))).toMatchObject({
      kind: 'tls',
      host: 'engine.test',
      port: 2376,
    });
    expect(toEngineConnection(dockerConfig.parse({ ...TLS, host: 'tcp://[::1]:2376' }))).toMatchObject({
      host: '[::1]',
    });
    expect(toEngineConnection(dockerConfig.parse(SERVER))).toEqual({ kind: 'ssh', serverId: 'srv_1' });
  });

  it('refuses every other way to an engine, and every way without encryption', () => {
    for (const host of [
      'unix:///var/run/docker.sock',
      '/var/run/docker.sock',
      'npipe:////./pipe/docker_engine',
      'fd://',
      'http://engine.test:2375',
      'https://engine.test:2376',
      'ssh://me@engine.test',
      'tcp://engine.test',
      'tcp://engine.test:0',
      'tcp://engine.test:65536',
      'tcp://engine.test:2376/path',
      'tcp://user@engine.test:2376',
      'tcp://engine.test:2376?x',
      'tcp://engine test:2376',
      ' tcp://engine.test:2376',
      '../srv',
      'srv/1',
      '',
    ]) {
      expect([host, listIssues({ host }).map(([member]) => member)]).toEqual([
        host,
        expect.arrayContaining(['host']),
      ]);
    }
  });

  it('requires the client certificate and its matching key in a usable form', () => {
    expect(listIssues({ host: TLS.host }).map(([member]) => member)).toEqual(['client_cert', 'client_key']);
    expect(listIssues({ ...TLS, client_key: 'text' })).toEqual([
      ['client_key', expect.stringMatching(/PEM/)],
    ]);
    expect(listIssues({ ...TLS, ca: 'text' })).toEqual([['ca', expect.stringMatching(/certificate/)]]);
    expect(listIssues({ ...SERVER, ca: certificate.cert }).map(([member]) => member)).toEqual(['host']);
    const huge = toPem('RSA PRIVATE KEY', craftRsaKey(16_384));
    expect(listIssues({ ...TLS, client_key: huge })).toEqual([
      ['client_key', expect.stringMatching(/8192 bits/)],
    ]);
    const encrypted = '-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n';
    expect(listIssues({ ...TLS, client_key: encrypted })).toEqual([
      ['client_key', expect.stringMatching(/passphrase/)],
    ]);
  });

  it('takes empty certificates as left out', () => {
    const empty = { ca: '', client_cert: ' \n', client_key: '' };
    expect(dockerConfig.parse({ ...SERVER, ...empty })).toMatchObject({ ca: null, client_cert: null });
    expect(toEngineConnection(dockerConfig.parse({ ...TLS, ca: '' }))).toMatchObject({
      kind: 'tls',
      ca: null,
    });
    expect(listIssues({ ...TLS, ...empty }).map(([member]) => member)).toEqual(['client_cert', 'client_key']);
    const stored = dockerConfig.parse({ ...TLS, ca: '' });
    expect(dockerConfig.parse(stored)).toEqual(stored);
  });

  it('refuses undeclared members, also of volumes', () => {
    for (const config of [
      { ...SERVER, socketPath: '/var/run/docker.sock' },
      { ...SERVER, privileged: true },
      { ...SERVER, volumes: [{ source: 'data', target: '/data', driver: 'local' }] },
    ])
      expect(listIssues(config)).not.toEqual([]);
  });

  it('accepts an image as docker pull does, and nothing but a name', () => {
    for (const image of [
      'busybox',
      'python:3.13-slim',
      'ghcr.io/a/b:1',
      'localhost:5000/a_b/c',
      `a@sha256:${'0'.repeat(64)}`,
    ])
      expect([image, listIssues({ ...SERVER, image })]).toEqual([image, []]);
    for (const image of ['', 'A', 'a b', 'a/../b', '-rf', 'a:b:c', 'a?tag=b', 'a&b', 'a#b', `a@sha256:0`])
      expect([image, listIssues({ ...SERVER, image }).length]).toEqual([image, 1]);
  });

  it('accepts valid variable names, and any text as values', () => {
    expect(listIssues({ ...SERVER, environment: { A_1: `'"$(x)\n` } })).toEqual([]);
    for (const name of ['1A', 'A-B', 'A=B', '', 'A B', 'A\n'])
      expect(listIssues({ ...SERVER, environment: { [name]: 'x' } })).not.toEqual([]);
    expect(listIssues({ ...SERVER, environment: { A: 'x\0y' } })).not.toEqual([]);
  });

  it('accepts a set-up of at most 4,096 characters without zero bytes; an empty one is none', () => {
    expect(listIssues({ ...SERVER, setup: 'x'.repeat(4_096) })).toEqual([]);
    expect(listIssues({ ...SERVER, setup: 'x'.repeat(4_097) }).map(([member]) => member)).toEqual(['setup']);
    expect(listIssues({ ...SERVER, setup: 'x\0y' }).map(([member]) => member)).toEqual(['setup']);
    expect(dockerConfig.parse({ ...SERVER, setup: ' \n' }).setup).toBeNull();
  });
});

describe('volumes of a Docker server', () => {
  it('may be named volumes and folders of the engine’s host', () => {
    for (const source of [
      'data',
      'a.b-c_1',
      '/srv/data',
      '/home/me/work',
      '/mnt/x/',
      '/running',
      '/devices',
      '/etcetera',
    ])
      expect([source, volumeIssue(source)]).toEqual([source, '']);
  });

  it('must not be the root folder, in any notation', () => {
    for (const source of ['/', '//', '///', '/.', '/..', '/srv/..', '/srv/../', '/./', '/srv/../../'])
      expect([source, volumeIssue(source)]).not.toEqual([source, '']);
    expect(volumeIssue('/')).toMatch(/root folder/);
  });

  it('must not be the socket of an engine or a folder that contains it', () => {
    for (const source of [
      '/var/run/docker.sock',
      '/run/docker.sock',
      '//var//run//docker.sock',
      '/VAR/RUN/DOCKER.SOCK',
      '/var/run',
      '/var/run/',
      '/run',
      '/var',
      '/var/lib',
      '/private/var/run/docker.sock',
      '/private',
      '/run/user/1000/docker.sock',
      '/run/containerd',
      '/home/me/.docker/run/docker.sock',
      '/srv/x.sock/y',
      '/srv/../var/run/docker.sock',
    ])
      expect([source, volumeIssue(source)]).not.toEqual([source, '']);
    expect(volumeIssue('/var/run/docker.sock')).toMatch(/socket/);
  });

  it('must not give control of the host', () => {
    for (const source of [
      '/proc',
      '/proc/1/root',
      '/sys',
      '/dev',
      '/dev/sda',
      '/etc',
      '/etc/passwd',
      '/boot',
      '/var/lib/docker/volumes',
    ])
      expect([source, volumeIssue(source)]).not.toEqual([source, '']);
  });

  it('must not be text that an engine interprets differently', () => {
    for (const source of [
      '',
      '.',
      './data',
      '../data',
      '~/data',
      'data:/x',
      'a/b',
      'a\nb',
      '/a\0b',
      '/a\u202eb',
      '-v',
    ])
      expect([source, volumeIssue(source)]).not.toEqual([source, '']);
  });

  it('must not replace the container’s own folders or each other', () => {
    for (const target of [
      '/',
      '//',
      'data',
      '/proc',
      '/proc/sys',
      '/sys',
      '/dev/shm',
      '/tmp',
      '/tmp/job',
      '/x/..',
      '/TMP',
    ])
      expect([target, volumeIssue('data', target)]).not.toEqual([target, '']);
    const volumes = [
      { source: 'a', target: '/data' },
      { source: 'b', target: '/data/' },
    ];
    expect(listIssues({ ...SERVER, volumes })).toEqual([['volumes', expect.stringMatching(/same target/)]]);
  });
});

describeOn('docker', 'createDockerRunner', () => {
  it('binds the secrets to the engine’s address and authority, and lists the SSH server of the engine', async () => {
    const { host, ca, clientCert, clientKey, untrustedCert, untrustedKey } = dockerHost();
    const dialer = localDialer();
    const runner = createDockerRunner({
      dialer,
      ssh: createSshConnections({ dialer }),
      log: createLog('silent'),
    });
    const config = runner.config.parse({ host, ca, client_cert: clientCert, client_key: clientKey });
    const destination = runner.destination(config, null);
    for (const change of [{ host: 'tcp://other.test:2376' }, { ca: clientCert }, { ca: null }])
      expect(runner.destination({ ...config, ...change }, null)).not.toEqual(destination);
    const containerChanges = [
      { image: 'other' },
      { volumes: [{ source: 'data', target: '/data', read_only: false }] },
    ];
    for (const change of containerChanges)
      expect(runner.destination({ ...config, ...change }, null)).toEqual(destination);
    for (const secret of [{ environment: { A: 'b' } }, { setup: 'export A=b' }]) {
      const withSecret = { ...config, ...secret };
      const bound = runner.destination(withSecret, null);
      expect(JSON.stringify(bound)).not.toMatch(/environment|setup/);
      for (const change of containerChanges)
        expect(runner.destination({ ...withSecret, ...change }, null)).not.toEqual(bound);
    }
    expect(runner.jumpServerIds(config)).toEqual([]);
    expect(runner.jumpServerIds(runner.config.parse(SERVER))).toEqual(['srv_1']);
    const mixed = { host, ca, client_cert: untrustedCert, client_key: clientKey };
    expect(runner.config.safeParse(mixed).error?.issues[0]?.message).toMatch(/not the key/);
    expect(runner.config.safeParse({ ...mixed, client_key: untrustedKey }).success).toBe(true);
    await runner.close();
    await dialer.close();
  });
});
