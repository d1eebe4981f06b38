import { findDocker, startKeycloakContainer, type DockerCli } from './container.ts';
import { findJavaProblem, startKeycloak, type KeycloakOptions, type RunningKeycloak } from './keycloak.ts';

/**
 * Finds a Docker engine to run Keycloak on if Java is missing or too old.
 * @returns undefined if Java can be used, and also if Docker is missing too: `startKeycloak` then reports what to
 *   install.
 */
export async function findDockerFallback(
  options: Pick<KeycloakOptions, 'environment' | 'dataDir'>,
): Promise<{ docker: DockerCli; reason: string } | undefined> {
  const reason = await findJavaProblem(options.environment, options.dataDir);
  if (reason === undefined) return undefined;
  const docker = await findDocker(options.environment, options.dataDir);
  return docker === undefined ? undefined : { docker, reason };
}

/**
 * Starts Keycloak on Java, or in a Docker container if Java cannot be used.
 * @throws StartError if both are missing, or if the start fails.
 */
export async function startOwnKeycloak(options: KeycloakOptions): Promise<RunningKeycloak> {
  const fallback = await findDockerFallback(options);
  options.signal?.throwIfAborted();
  if (fallback === undefined) return startKeycloak(options);
  options.note(`${fallback.reason}: starting in a Docker container`);
  return startKeycloakContainer(fallback.docker, options);
}
