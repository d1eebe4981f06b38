import Sequencer from '@jest/test-sequencer';
import { toTestFiles } from './test-files.ts';

// JavaScript, because the types of the package are wrong for an ES module.

/**
 * The slowest files, the slowest first. Without the list, jest sorts the files of a fresh checkout by their size, begins
 * some of these last, and other processors are idle meanwhile. `npm test` prints them.
 */
const SLOWEST = toTestFiles([
  // These need no Keycloak, which starts meanwhile (a minute in a fresh checkout).
  'runners/ssh/supervisor.test.ts',
  'runners/docker/docker.test.ts',
  'runners/local/local.test.ts',
  'runners/ssh/run.test.ts',
  'runners/ssh/exit.test.ts',
  'runners/ssh/ssh.test.ts',
  'runners/kubernetes/hostile-cluster.test.ts',
  'lib/ssh/hostile-server.test.ts',
  'runners/docker/warm-container.test.ts',
  'runners/docker/hostile-engine.test.ts',
  'runners/docker/failures.test.ts',
  'gateway/admission/request-body.test.ts',
  'hosts/scripts.test.ts',
  'runners/ssh/scripts.test.ts',
  'runners/docker/script.test.ts',
  'lib/net/dns.test.ts',
  'lib/net/dialer-dns.test.ts',
  // These do.
  'image.test.ts',
  'readme/walk.test.ts',
  'cli/admin-commands.test.ts',
  'gateway/limits.test.ts',
  'keys/races.test.ts',
  'keys/revocation.test.ts',
  'security/moved-ciphertext.test.ts',
  'http/body-structure.test.ts',
  'keys/admin/rotate.test.ts',
  'keys/revocation-apps.test.ts',
  'gateway/upstream-faults.test.ts',
  'keys/one-realm.test.ts',
  'keys/admin/move.test.ts',
  'runs/killed-app.test.ts',
  'dev/quickstart/own-keycloak.test.ts',
  'security/stolen-vault-secret.test.ts',
  'cli/start.test.ts',
  'runs/orphan-recovery.test.ts',
  'identity/revocation.test.ts',
  'gateway/chat.test.ts',
]);

/** Starts the slowest test files first, and the others as jest does: by their last duration, or by their size. */
export default class LongestFirst extends Sequencer {
  async sort(tests) {
    const rank = ({ path: file }) => (SLOWEST.includes(file) ? SLOWEST.indexOf(file) : SLOWEST.length);
    return (await super.sort(tests)).toSorted((a, b) => rank(a) - rank(b));
  }
}
