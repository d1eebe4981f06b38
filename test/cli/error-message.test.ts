import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { assertNodeVersion, toErrorMessage } from '../../src/cli/error-message.ts';
import { AppError, UnfitError, StartError } from '../../src/lib/errors.ts';

/** True also after `npm prune`, which removes the Node of the dependencies, and for a program started without npm. */
const INSTALL_NODE = /needs Node 24; this is Node [\d.]+\. Install Node 24, or on Linux run "npm ci"/;

describe('the Node version', () => {
  it('is 24 in npm scripts, also if another version is installed', () => {
    expect(process.versions.node).toMatch(/^24\./);
  });

  it.each(['20.19.0', '22.18.0', '26.0.0'])('is refused if it is %s, with what to do', (version) => {
    expect(() => {
      assertNodeVersion(version);
    }).toThrow(INSTALL_NODE);
  });
});

describe('an error message at the terminal', () => {
  it('has no stack for an expected error', () => {
    expect(toErrorMessage(new StartError('Install Java.'))).toBe('Install Java.');
    expect(toErrorMessage(new AppError('keycloak_unavailable', 'Keycloak is unavailable.'))).toBe(
      'Keycloak is unavailable.',
    );
    expect(toErrorMessage(new UnfitError('The realm is not set up.'))).toBe('The realm is not set up.');
  });

  it('names the settings of a port that is in use', () => {
    const error = Object.assign(new Error('listen EADDRINUSE'), { code: 'EADDRINUSE', port: 3000 });
    expect(toErrorMessage(error)).toMatch(/Port 3000 is in use.*PORT/);
  });
});

describe('the launcher', () => {
  const others = (process.env['PATH'] ?? '')
    .split(path.delimiter)
    .map((folder) => path.join(folder, 'node'))
    .filter((file) => !file.includes('node_modules') && existsSync(file))
    .map((file) => ({ file, version: spawnSync(file, ['--version'], { encoding: 'utf8' }).stdout.trim() }))
    .filter(({ version }) => !version.startsWith('v24.'));
  const [other] = others;
  const run = other === undefined ? it.skip : it;

  run('names the required version on a Node that cannot parse TypeScript', () => {
    const launcher = path.join(import.meta.dirname, '..', '..', 'src', 'cli', 'launch.js');
    const { stderr, status } = spawnSync(other?.file ?? '', [launcher, '--help'], { encoding: 'utf8' });
    expect(stderr).toContain(`needs Node 24; this is Node ${other?.version.slice(1) ?? ''}`);
    expect(stderr).toMatch(INSTALL_NODE);
    expect(status).toBe(1);
  });
});
