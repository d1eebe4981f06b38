import { findDocker, startKeycloakContainer, type Docker } from './keycloak-container.ts';
import { lackOfJava, startKeycloak, type KeycloakOptions, type RunningKeycloak } from './keycloak.ts';

/**
 * Decides what Keycloak runs on: the machine's Java, and where that is missing or too old, a Docker engine.
 * @returns undefined for Java, also where there is neither: without Java `startKeycloak` says what to install.
 */
export async function chooseDocker(
  options: Pick<KeycloakOptions, 'environment' | 'dataDir'>,
): Promise<{ docker: Docker; because: string } | undefined> {
  const because = await lackOfJava(options.environment, options.dataDir);
  if (because === undefined) return undefined;
  const docker = await findDocker(options.environment, options.dataDir);
  return docker === undefined ? undefined : { docker, because };
}

/**
 * Starts Keycloak on what there is, and says on what.
 * @throws StartError when there is neither, and as either way does.
 */
export async function startOwnKeycloak(options: KeycloakOptions): Promise<RunningKeycloak> {
  const chosen = await chooseDocker(options);
  options.signal?.throwIfAborted();
  if (chosen === undefined) return startKeycloak(options);
  options.note(`${chosen.because}: taking a container of Docker`);
  return startKeycloakContainer(chosen.docker, options);
}
