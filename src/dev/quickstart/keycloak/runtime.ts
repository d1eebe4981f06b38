import { findDocker, startKeycloakContainer, type DockerCli } from './container.ts';
import { findJavaProblem, startKeycloak, type KeycloakOptions, type RunningKeycloak } from './keycloak.ts';

/**
 * Decides what Keycloak runs on: the machine's Java, and where that is missing or too old, a Docker engine.
 * @returns undefined for Java, also where there is neither: without Java `startKeycloak` says what to install.
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
 * Starts Keycloak on what there is, and says on what.
 * @throws StartError when there is neither, and as either way does.
 */
export async function startOwnKeycloak(options: KeycloakOptions): Promise<RunningKeycloak> {
  const fallback = await findDockerFallback(options);
  options.signal?.throwIfAborted();
  if (fallback === undefined) return startKeycloak(options);
  options.note(`${fallback.reason}: taking a container of Docker`);
  return startKeycloakContainer(fallback.docker, options);
}
