import { once } from 'node:events';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { pipeline, type Duplex } from 'node:stream';
import tls from 'node:tls';

/** Where the proxy listens, and the version of the engine. */
export interface DockerProxyDescription {
  pid: number;
  /** The TLS port on loopback; 0 if the engine has TLS itself. */
  port: number;
  /** The socket without TLS. */
  socketPath: string;
  version: string;
}

const [address = '', folder = '', engineCertificates = ''] = process.argv.slice(2);
const readOwnCertificate = (name: string) => readFileSync(path.join(folder, 'certs', `${name}.pem`));

/** For an engine with a local socket: listens with TLS and requires the client certificate. */
async function startTlsProxy(socketPath: string): Promise<DockerProxyDescription> {
  const server = tls.createServer({
    ...{
      ca: readOwnCertificate('ca'),
      cert: readOwnCertificate('server'),
      key: readOwnCertificate('server-key'),
    },
    ...{ requestCert: true, rejectUnauthorized: true, allowHalfOpen: true },
  });
  server.on('secureConnection', (client) => {
    pipeBothWays(client, net.connect({ path: socketPath, allowHalfOpen: true }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { pid: process.pid, port, socketPath, version: await readVersion(socketPath) };
}

/** For an engine with TLS: listens on a local socket in a folder that only this account can enter. */
async function startSocketProxy({ hostname, port }: URL): Promise<DockerProxyDescription> {
  const readEngineCertificate = (name: string) => readFileSync(path.join(engineCertificates, `${name}.pem`));
  const certificates = {
    ca: readEngineCertificate('ca'),
    cert: readEngineCertificate('cert'),
    key: readEngineCertificate('key'),
  };
  const socketFolder = mkdtempSync(path.join(os.tmpdir(), 'engine-'));
  process.once('SIGTERM', () => {
    rmSync(socketFolder, { recursive: true, force: true });
    process.exit(0);
  });
  const socketPath = path.join(socketFolder, 'docker.sock');
  const server = net.createServer({ allowHalfOpen: true }, (client) => {
    pipeBothWays(client, tls.connect({ host: hostname, port: Number(port), ...certificates }));
  });
  server.listen(socketPath);
  await once(server, 'listening');
  return { pid: process.pid, port: 0, socketPath, version: await readVersion(socketPath) };
}

function pipeBothWays(one: Duplex, other: Duplex): void {
  const ended = () => undefined;
  pipeline(one, other, ended);
  pipeline(other, one, ended);
}

async function readVersion(socketPath: string): Promise<string> {
  const request = http.get({ socketPath, path: '/version' });
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  return (JSON.parse(text) as { Version: string }).Version;
}

async function startProxy(): Promise<DockerProxyDescription> {
  const url = new URL(address);
  return url.protocol === 'unix:' ? startTlsProxy(url.pathname) : startSocketProxy(url);
}

/** Writes the result of the start atomically. */
function writeOutcome(outcome: DockerProxyDescription | { problem: string }): void {
  const file = path.join(folder, 'front.json');
  writeFileSync(`${file}.new`, JSON.stringify(outcome));
  renameSync(`${file}.new`, file);
}

try {
  writeOutcome(await startProxy());
} catch (error) {
  writeOutcome({ problem: String(error) });
  process.exit(1);
}
