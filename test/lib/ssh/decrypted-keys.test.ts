import { describe, expect, it } from '@jest/globals';
import { AppError } from '../../../src/lib/errors.ts';
import { sshConfig, type SshHop } from '../../../src/lib/ssh/config.ts';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { createDecryptedKeys, type DecryptedKeys } from '../../../src/lib/ssh/decrypted-keys.ts';
import { generateSshKeyPair } from '../../../src/lib/ssh/private-key.ts';
import { PrivateKeyBusyError } from '../../../src/lib/ssh/ssh-error.ts';
import { createSshRunner } from '../../../src/runners/ssh/index.ts';
import type { ExitEvent, RunEvent, TargetServer } from '../../../src/runners/runner.ts';
import { describeOn, registerPrivateKey, sshHosts } from '../../support/hosts.ts';
import { createLockedKey } from '../../support/locked-key.ts';
import { afterThisTest, localDialer, neverAborted, openConnections, serverAt } from './servers.ts';

function createHop(change: Partial<SshHop> = {}): SshHop {
  const { privateKey } = generateSshKeyPair();
  registerPrivateKey(privateKey);
  const config = sshConfig.parse({ host: 'h', username: 'u', auth_method: 'key', private_key: privateKey });
  return { serverId: 's', owner: 'user:1', version: 1, hostKey: null, id: null, config, ...change };
}

describe('the decrypted key of a server', () => {
  it('is decrypted once while a connection holds it, and again after the last one closed', async () => {
    const keys = createDecryptedKeys();
    const hop = createHop();
    const [one, two] = [keys.lease(hop), keys.lease(hop)];
    const [first, second] = await Promise.all([one.read(neverAborted()), two.read(neverAborted())]);
    expect(second).toBe(first);
    one.release();
    one.release();
    const three = keys.lease(hop);
    expect(await three.read(neverAborted())).toBe(first);
    two.release();
    three.release();
    expect(await keys.lease(hop).read(neverAborted())).not.toBe(first);
  });

  it('is not shared with another owner, server or version', async () => {
    const keys = createDecryptedKeys();
    const hop = createHop();
    const first = await keys.lease(hop).read(neverAborted());
    for (const change of [{ owner: 'user:2' }, { serverId: 't' }, { version: 2 }] as const)
      expect(await keys.lease({ ...hop, ...change }).read(neverAborted())).not.toBe(first);
  });

  it('is tried again after a failure', async () => {
    const keys = createDecryptedKeys();
    const hop = createHop();
    const lease = keys.lease({ ...hop, config: { ...hop.config, private_key: 'no key' } });
    const other = keys.lease(hop);
    await expect(lease.read(neverAborted())).rejects.toThrow();
    await expect(other.read(neverAborted())).resolves.toMatchObject({ type: 'ssh-ed25519' });
  });
});

describeOn('ssh', 'a stored key whose derivation is too costly', () => {
  it('is refused with the reason when it is used', async () => {
    const { plain } = sshHosts();
    const private_key = createLockedKey(129, 'a passphrase');
    const change = { auth_method: 'key', password: null, private_key, passphrase: 'a passphrase' };
    const { connections } = openConnections();
    await expect(connections.exec(serverAt(plain, change), 'true', neverAborted())).rejects.toMatchObject({
      failure: 'auth_failed',
      message: expect.stringMatching(/more than 128 rounds/),
    });
  });
});

describeOn('ssh', 'a key that cannot be decrypted in time', () => {
  const busyKeys: DecryptedKeys = {
    lease: () => ({ read: () => Promise.reject(new PrivateKeyBusyError()), release: () => undefined }),
  };

  function createBusyRunner() {
    const { plain, keys } = sshHosts();
    const dialer = localDialer();
    const runner = createSshRunner({
      connections: createSshConnections({ dialer, decryptedKeys: busyKeys }),
    });
    afterThisTest(async () => {
      await runner.close();
      await dialer.close();
    });
    const server = serverAt(plain, { auth_method: 'key', password: null, private_key: keys.ed25519 });
    return { runner, target: { ...server, workspacePath: null } as TargetServer<never> };
  }

  it('is a 503 in a test, which says nothing about the server', async () => {
    const { runner, target } = createBusyRunner();
    const error: unknown = await runner.test(target, neverAborted()).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(AppError);
    expect(error).toMatchObject({ code: 'busy', status: 503, headers: { 'retry-after': '5' } });
  });

  it('ends a run as a failure of the infrastructure that can be tried again', async () => {
    const { runner, target } = createBusyRunner();
    const job = {
      runId: 'busy',
      program: { command: 'true' },
      stdin: null,
      files: [],
      env: {},
      workdir: null,
    };
    const limits = {
      timeoutMs: 60_000,
      maxOutputBytes: 1,
      memoryBytes: null,
      cpus: null,
      pids: null,
      network: null,
    };
    const events: RunEvent[] = [];
    for await (const event of runner.run(target, job, limits, neverAborted())) events.push(event);
    expect(events.at(-1) as ExitEvent).toMatchObject({
      ...{ cause: 'infrastructure', cleanup: 'verified' },
      message: expect.stringMatching(/Too many private keys .* Try again/),
    });
  });
});
