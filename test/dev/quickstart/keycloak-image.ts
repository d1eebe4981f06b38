import { execFileSync } from 'node:child_process';
import { keycloakHome } from '../../../src/dev/quickstart/keycloak/archive.ts';
import { dockerHost } from '../../support/hosts.ts';
import { TEST_DATA_DIR } from '../../support/test-servers.ts';

/** The entry point, the folders and the user of the image that it stands for. */
const DOCKERFILE = `FROM python-node:test
ENV JAVA_HOME=/opt/java
COPY java /opt/java
COPY --chown=1000:0 keycloak /opt/keycloak
USER 1000
ENTRYPOINT ["/opt/keycloak/bin/kc.sh"]
`;

/** Streams to the engine what the image is made of: nothing is copied on this side. */
const SCRIPT = `
set -euo pipefail
java=$(dirname "$(dirname "$(readlink -f "\${JAVA_HOME:-/usr}/bin/java")")")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf %s "$DOCKERFILE" >"$folder/Dockerfile"
ln -s "$java" "$folder/java"
ln -s "$KEYCLOAK" "$folder/keycloak"
tar -C "$folder" -ch --exclude=java/jmods --exclude=java/docs --exclude=java/man --exclude='*/src.zip' \
  --exclude=keycloak/data Dockerfile java keycloak | "$DOCKER" build --quiet --tag "$IMAGE" -
`;

/**
 * Makes an image of the Keycloak that the tests run and of this machine's Java, under the name that
 * keycloak/Dockerfile begins with: the test engine reaches no registry. An engine of one's own pulls the real one.
 */
export function ensureKeycloakImage(image: string): void {
  if (process.env['TEST_DOCKER_HOST'] !== undefined) return;
  const { command, socketPath } = dockerHost();
  const values = { DOCKERFILE, IMAGE: image, DOCKER: command, KEYCLOAK: keycloakHome(TEST_DATA_DIR) };
  execFileSync('bash', ['-c', SCRIPT], {
    env: { ...process.env, ...values, DOCKER_HOST: `unix://${socketPath}` },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}
