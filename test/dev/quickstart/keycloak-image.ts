import { execFileSync } from 'node:child_process';
import { keycloakHome } from '../../../src/dev/quickstart/keycloak/archive.ts';
import { dockerHost } from '../../support/hosts.ts';
import { TEST_DATA_DIR } from '../../support/postgres-and-keycloak.ts';

/** Same entry point, folders and user as the real image. */
const DOCKERFILE = `FROM python-node:test
ENV JAVA_HOME=/opt/java
COPY java /opt/java
COPY --chown=1000:0 keycloak /opt/keycloak
USER 1000
ENTRYPOINT ["/opt/keycloak/bin/kc.sh"]
`;

/** Streams the build context to the engine, without a copy on this machine. */
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
 * Builds an image of the tests' Keycloak and this machine's Java, with the name of the base image in
 * keycloak/Dockerfile: the test engine cannot reach a registry. An external engine pulls the real image.
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
