import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { SETTINGS } from '../../src/config/settings.ts';
import { findSshd } from '../../src/dev/quickstart/demo-ssh-host.ts';
import { isProcessRunning } from '../../src/dev/quickstart/processes.ts';
import { compileCache } from '../support/compile-cache.ts';
import { freePort } from '../support/free-port.ts';
import { describeOn, dockerHost, kubernetesHost, sshHosts } from '../support/hosts.ts';
import { copyTestKeycloak } from '../support/own-keycloak.ts';
import { until } from '../support/until.ts';
import { fillIn, parseCodeBlocks, type CodeBlock } from './code-blocks.ts';
import {
  CURL_SETTINGS,
  openTerminal,
  startInTerminal,
  type OpenTerminal,
  type Terminal,
} from './terminal.ts';

/*
 * Does what the README says, line by line and in its order, on a quick start that starts from nothing but Keycloak's
 * files: a failed command, an error status, an unset variable and a missing program are failures.
 */

const PROJECT = path.resolve(import.meta.dirname, '..', '..');
const README = readFileSync(path.join(PROJECT, 'README.md'), 'utf8');
const BLOCKS = parseCodeBlocks(README);
/** The address of the README, which `PORT` changes here. */
const PRINTED_ADDRESS = `http://localhost:${SETTINGS.PORT.fallback}`;
const START_MS = 180_000;
const SECTION_MS = 120_000;

let cwd: string;
let env: Record<string, string>;
let terminal: Terminal;
const ownTerminals: OpenTerminal[] = [];

beforeAll(async () => {
  cwd = mkdtempSync(path.join(tmpdir(), 'ops-readme-'));
  chmodSync(cwd, 0o755);
  for (const name of ['src', 'node_modules', 'keycloak', 'migrations'])
    symlinkSync(path.join(PROJECT, name), path.join(cwd, name));
  cpSync(path.join(PROJECT, 'package.json'), path.join(cwd, 'package.json'));
  copyTestKeycloak(path.join(cwd, '.data'));
  for (const folder of ['home', 'bin']) mkdirSync(path.join(cwd, folder));
  writeFileSync(path.join(cwd, 'home', '.curlrc'), CURL_SETTINGS);
  writeFileSync(path.join(cwd, 'bin', 'npm'), createNpm(), { mode: 0o755 });
  env = {
    ...compileCache(),
    PATH: `${path.join(cwd, 'bin')}:${process.env['PATH'] ?? ''}`,
    HOME: path.join(cwd, 'home'),
    PORT: String(await freePort()),
    KEYCLOAK_PORT: String(await freePort()),
    ...{ METRICS_PORT: '0', POSTGRES_PORT: '0' },
  };
  linkTools();
  terminal = openTerminal({
    cwd,
    env: { ...env, PATH: `${path.join(cwd, 'bin')}:${path.join(cwd, 'tools')}` },
  });
});
afterAll(async () => {
  await terminal.close();
  for (const open of ownTerminals.reverse()) await open.interrupt();
  rmSync(cwd, { recursive: true });
}, START_MS);

/** The packages are installed, and `npm ci` would install them again for all tests. */
function createNpm(): string {
  return `#!/bin/sh\n[ "$1" != ci ] || exit 0\nexec ${findProgram('npm')} "$@"\n`;
}

/** Programs that the README names, and those that `npm` and this file need. A block that uses another one fails. */
const TOOLS = ['curl', 'jq', 'kubectl', 'bash', 'sh', 'env', 'node', 'grep'];

function linkTools(): void {
  mkdirSync(path.join(cwd, 'tools'));
  for (const tool of TOOLS) {
    const file = findProgram(tool);
    if (file !== '') symlinkSync(file, path.join(cwd, 'tools', tool));
  }
}

/** @returns an empty string when it is not installed. */
function findProgram(name: string): string {
  return execFileSync('sh', ['-c', `command -v ${name} || true`], { encoding: 'utf8' }).trim();
}

/** Runs the blocks of a section in their order. @returns what they print. */
async function walk(heading: string, values: Record<string, string> = {}): Promise<string> {
  const blocks = BLOCKS.filter((block) => block.heading === heading && !block.mark.startsWith('not run'));
  const printed: string[] = [];
  for (const block of blocks) printed.push(await runBlock(block, values));
  return printed.join('\n');
}

async function runBlock(block: CodeBlock, values: Record<string, string>): Promise<string> {
  const code = (block.mark === 'your values' ? fillIn(block, values) : block.code).replaceAll(
    PRINTED_ADDRESS,
    `http://localhost:${env['PORT']}`,
  );
  if (block.mark !== 'own terminal') return terminal.run(toShell(block.language, code));
  const open = await startInTerminal(code, { cwd, env });
  ownTerminals.push(open);
  return open.printed();
}

function toShell(language: CodeBlock['language'], code: string): string {
  if (language === 'bash') return code;
  const interpreter = language === 'js' ? 'node --input-type=module' : `${process.env['OPS_TEST_PYTHON']} -`;
  return `${interpreter} <<'END_OF_PROGRAM'\n${code}END_OF_PROGRAM\n`;
}

const ONLINE = /"status": "online"/;
const exited = expect.stringMatching(/"cause":"exited","code":0/);

describe('the README as printed, on a quick start', () => {
  it(
    'starts',
    async () => {
      expect(await walk('Try it')).toContain('Ops Center is running.');
    },
    START_MS,
  );

  it(
    'adds a key, which pays for a chat',
    async () => {
      expect(await walk('First steps')).toMatch(/^x-ops-key-scope: personal/m);
    },
    SECTION_MS,
  );

  const hasPython = process.env['OPS_TEST_PYTHON'] !== undefined || process.env['CI'] === 'true';
  (hasPython ? it : it.skip)(
    'chats with the SDKs (Python: OPS_TEST_PYTHON)',
    async () => {
      // Both print the same answer.
      // The block that creates the token prints nothing.
      expect((await walk('With an SDK')).trim()).toMatch(/^(.+)\n\1$/s);
    },
    SECTION_MS,
  );

  (findSshd() === undefined ? it.skip : it)(
    'runs code on the host that the quick start offers',
    async () => {
      const printed = await walk('Run code');
      expect(printed).toMatch(ONLINE);
      expect(printed).toMatch(/"cause":"exited","code":0/);
      expect(printed).toMatch(
        /"type":"output".*"status": "running".*"cause":"cancelled".*"cleanup":"verified"/s,
      );
    },
    SECTION_MS,
  );

  describeOn('ssh', 'on an SSH host', () => {
    it(
      'adds the host, confirms the key that it showed, and runs code',
      async () => {
        const { plain, user, keys } = sshHosts();
        const keyFile = path.join(cwd, 'home', 'key');
        writeFileSync(keyFile, keys.ed25519, { mode: 0o600 });
        const values = {
          SSH_HOST: plain.host,
          SSH_PORT: String(plain.port),
          SSH_USER: user,
          SSH_KEY_FILE: keyFile,
        };
        const printed = await walk('Over SSH', values);
        expect(printed).toContain(plain.hostKey.fingerprint);
        expect(printed).toMatch(ONLINE);
        expect(printed).toEqual(exited);
      },
      SECTION_MS,
    );
  });

  describeOn('docker', 'in Docker', () => {
    it(
      'adds the engine over SSH and with TLS, and runs code in both',
      async () => {
        const { host, ca, clientCert, clientKey, image } = dockerHost();
        const folder = path.join(cwd, 'home', 'docker');
        mkdirSync(folder);
        for (const [name, text] of Object.entries({ ca, cert: clientCert, key: clientKey }))
          writeFileSync(path.join(folder, `${name}.pem`), text, { mode: 0o600 });
        const values = { DOCKER_IMAGE: image, DOCKER_ADDRESS: host, DOCKER_CERTIFICATES: folder };
        const printed = await walk('In Docker', values);
        expect(printed.match(new RegExp(ONLINE, 'g'))).toHaveLength(2);
        expect(printed.match(/"data":"42/g)).toHaveLength(2);
      },
      SECTION_MS,
    );
  });

  describeOn('kubernetes', 'in Kubernetes', () => {
    const cluster = kubernetesHost();
    afterAll(() => terminal.run('kubectl delete namespace ops-center --wait=false'));

    (cluster?.adminKubeconfig === undefined ? it.skip : it)(
      'creates an account with no more rights than it needs, and runs code',
      async () => {
        const file = path.join(cwd, 'home', 'kubeconfig');
        writeFileSync(file, cluster?.adminKubeconfig ?? '', { mode: 0o600 });
        await terminal.run(`export KUBECONFIG=${file}`);
        const printed = await walk('In Kubernetes', { KUBERNETES_IMAGE: cluster?.image ?? '' });
        expect(printed).toMatch(ONLINE);
        expect(printed).toEqual(exited);
      },
      SECTION_MS,
    );
  });

  it('has no block that is not run without saying why', () => {
    const walked = [
      'Try it',
      'First steps',
      'With an SDK',
      'Run code',
      'Over SSH',
      'In Docker',
      'In Kubernetes',
    ];
    const missed = BLOCKS.filter(
      ({ heading, mark }) => !walked.includes(heading) && !mark.startsWith('not run'),
    );
    expect(missed).toEqual([]);
  });

  it(
    'ends both commands with Ctrl-C, and the demo host with its programs and its server',
    async () => {
      const [start, demoHost] = ownTerminals;
      const server = '$BASE/api/v1/execution-servers/$SERVER';
      const json =
        '-H "Cookie: session=$SESSION" -H "Content-Type: application/json" -H "Prefer: respond-async"';
      const command = JSON.stringify({ command: 'echo pid $$; exec sleep 1000' });
      const printed = await terminal.run(
        `RUN=$(curl -s -X POST ${server}/run ${json} -d '${command}' | jq -er .run_id)\n` +
          `EVENTS="curl -sN $BASE/api/v1/runs/$RUN/events -H 'Cookie: session=$SESSION'"\n` +
          `grep -m1 '"data":"pid' <(eval "$EVENTS")`,
      );
      const pid = Number(/pid (\d+)/.exec(printed)?.[1]);
      expect(isProcessRunning(pid)).toBe(true);
      await demoHost?.interrupt();
      await until(() => !isProcessRunning(pid));
      expect(await terminal.run('eval "$EVENTS"')).toMatch(/"cause":"lost"/);
      const names = await terminal.run(
        'curl -s $BASE/api/v1/execution-servers -H "Cookie: session=$SESSION" | jq -r ".[].name"',
      );
      expect(names).not.toContain('Demo host');
      const again = await startInTerminal('npm run ops -- demo-host', { cwd, env });
      ownTerminals.push(again);
      await start?.interrupt();
      await until(() => again.printed().includes('The quick start has stopped, and the demo host with it'));
      expect(start?.printed()).toMatch(/Stopping Ops Center.*Stopping Postgres/s);
    },
    SECTION_MS,
  );
});
