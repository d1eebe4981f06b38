import Sequencer from '@jest/test-sequencer';
import path from 'node:path';

// JavaScript, because the types of the package are wrong for an ES module.

/**
 * The slowest files, the slowest first. Without the list, jest sorts the files of a fresh checkout by their size, begins
 * some of these last, and other processors are idle meanwhile. `npm test` prints them. The first five need no Keycloak,
 * which starts meanwhile.
 */
const SLOWEST = [
  'runners/docker/docker.test.ts',
  'runners/local/local.test.ts',
  'runners/ssh/run.test.ts',
  'runners/ssh/ssh.test.ts',
  'runners/kubernetes/hostile-cluster.test.ts',
  'image.test.ts',
  'cli/admin-commands.test.ts',
  'gateway/limits.test.ts',
  'security/moved-ciphertext.test.ts',
  'keys/admin/rotate.test.ts',
  'gateway/upstream-faults.test.ts',
  'keys/admin/move.test.ts',
  'runs/killed-app.test.ts',
  'dev/quickstart/own-keycloak.test.ts',
  'security/stolen-vault-secret.test.ts',
  'cli/start.test.ts',
  'runs/orphan-recovery.test.ts',
  'keys/revocation.test.ts',
  'keys/one-realm.test.ts',
  'identity/revocation.test.ts',
  'gateway/chat.test.ts',
].map((file) => path.resolve(import.meta.dirname, '..', file));

/** Starts the slowest test files first, and the others as jest does: by their last duration, or by their size. */
export default class LongestFirst extends Sequencer {
  async sort(tests) {
    const rank = ({ path: file }) => (SLOWEST.includes(file) ? SLOWEST.indexOf(file) : SLOWEST.length);
    return (await super.sort(tests)).toSorted((a, b) => rank(a) - rank(b));
  }
}
