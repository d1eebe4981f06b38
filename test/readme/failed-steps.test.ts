import { describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { parseCodeBlocks } from './code-blocks.ts';

/*
 * What a reader sees when a step of the README fails. The blocks are pasted, so a failed command does not stop the
 * following ones.
 */

const README = readFileSync(path.resolve(import.meta.dirname, '..', '..', 'README.md'), 'utf8');
const CODE = parseCodeBlocks(README)
  .filter(({ language }) => language === 'bash')
  .map(({ code }) => code)
  .join('\n');
/** Variables that hold a part of a response, which a failed step leaves empty. */
const READ_FROM_RESPONSE = ['SERVER', 'RUN', 'SSH_SERVER', 'HOST_KEY', 'DOCKER_SERVER', 'KUBERNETES_SERVER'];
/** The jq programs that read a response. */
const FILTERS = [...CODE.matchAll(/jq -(?:er|ce) '([^']+)'/g)].map((match) => match[1] ?? '');
const PROBLEM = {
  detail: 'The request is not valid; see errors.',
  errors: [{ path: 'name', message: 'must not be empty' }],
};

function runJq(filter: string, input: unknown) {
  const { stderr, stdout, status } = spawnSync('jq', ['-er', filter], {
    input: JSON.stringify(input),
    encoding: 'utf8',
  });
  return { stderr, stdout, status };
}

describe('a failed step of the README', () => {
  it.each(READ_FROM_RESPONSE)(
    'stops each later command that needs %s, with the name of the variable',
    (name) => {
      expect(CODE).toContain(`${name}=$(`);
      expect(CODE).toContain(`\${${name}:?}`);
      expect(CODE).not.toMatch(new RegExp(`\\$${name}\\b`));
    },
  );

  it('shows errors of curl where its progress is hidden', () => {
    expect(CODE).toContain('curl -sS');
    expect(CODE).not.toMatch(/curl -\w*s(?!S)\w* /);
  });

  it('reads each value of a response with a filter that has an error', () => {
    expect(FILTERS.length).toBeGreaterThanOrEqual(READ_FROM_RESPONSE.length);
  });

  it.each([...new Set(FILTERS)])('shows the details of a refused request: jq %s', (filter) => {
    const { status, stdout, stderr } = runJq(filter, PROBLEM);
    expect(status).not.toBe(0);
    expect(stdout).toBe('');
    expect(stderr).toContain('must not be empty');
  });

  it('shows the message of a test that has no host key, and the servers without a Demo host', () => {
    const hostKey = FILTERS.find((filter) => filter.includes('host_key')) ?? '';
    expect(
      runJq(hostKey, { status: 'offline', message: 'No answer.', details: { host_key: null } }).stderr,
    ).toContain('No answer.');
    const demoHost = FILTERS.find((filter) => filter.includes('Demo host')) ?? '';
    expect(runJq(demoHost, [{ id: '1', name: 'Other' }]).stderr).toMatch(/no Demo host.*Other/);
    expect(runJq(demoHost, [{ id: '1', name: 'Demo host' }])).toEqual({
      status: 0,
      stdout: '1\n',
      stderr: '',
    });
  });
});
