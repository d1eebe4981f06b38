import { expect, it } from '@jest/globals';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { describeOn, dockerHost, type DockerHost } from '../support/hosts.ts';
import { prepareExternalEngine, stopDockerProxy } from '../support/external-docker-engine.ts';

// Uses the engine of the tests as an external one, first through its socket, then through TLS.

type Engine = Omit<DockerHost, 'overSsh'>;

function stopAndRemove(folder: string): void {
  stopDockerProxy(folder);
  rmSync(folder, { recursive: true });
}

async function statusOf(request: http.ClientRequest): Promise<number | undefined> {
  const [response] = (await once(request.end(), 'response')) as [http.IncomingMessage];
  response.resume();
  await once(response, 'close');
  return response.statusCode;
}

function askOverTls({ host, ca }: Engine, cert: string, key: string): Promise<number | undefined> {
  const { hostname, port } = new URL(host);
  return statusOf(https.request({ hostname, port, path: '/version', ca, cert, key, agent: false }));
}

function askOverSocket({ socketPath }: Engine): Promise<number | undefined> {
  return statusOf(http.request({ socketPath, path: '/version', agent: false }));
}

describeOn('docker', 'An external Docker engine', () => {
  const { host, socketPath, image, smallImage, version, ...certificates } = dockerHost();

  it('with a local socket gets a TLS proxy that requires the right certificate', async () => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'own-engine-'));
    const address = `unix://${socketPath}`;
    try {
      const engine = prepareExternalEngine({ address, certificates: undefined, image, smallImage, folder });
      expect(engine.version).toBe(version);
      expect(await askOverTls(engine, engine.clientCert, engine.clientKey)).toBe(200);
      await expect(askOverTls(engine, engine.untrustedCert, engine.untrustedKey)).rejects.toThrow();
      expect(await askOverSocket(engine)).toBe(200);
    } finally {
      stopAndRemove(folder);
    }
  });

  it('with TLS gets a proxy on a local socket, for the inspection by tests', async () => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'own-engine-'));
    for (const [name, text] of Object.entries({
      ca: certificates.ca,
      cert: certificates.clientCert,
      key: certificates.clientKey,
    }))
      writeFileSync(path.join(folder, `${name}.pem`), text, { mode: 0o600 });
    try {
      const engine = prepareExternalEngine({
        address: host,
        certificates: folder,
        image,
        smallImage,
        folder,
      });
      expect(engine.host).toBe(host);
      expect(await askOverTls(engine, engine.clientCert, engine.clientKey)).toBe(200);
      expect(await askOverSocket(engine)).toBe(200);
    } finally {
      stopAndRemove(folder);
    }
  });

  it('that does not respond is named in the error', () => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'own-engine-'));
    const address = `unix://${path.join(folder, 'nothing.sock')}`;
    try {
      expect(() =>
        prepareExternalEngine({ address, certificates: undefined, image, smallImage, folder }),
      ).toThrow(`The Docker Engine at ${address} was not reached`);
    } finally {
      stopAndRemove(folder);
    }
  });
});
