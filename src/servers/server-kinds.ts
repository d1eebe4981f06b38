import type { LocalExecution } from '../identity/service.ts';
import { AppError } from '../lib/errors.ts';
import type { Runner, ServerType } from '../runners/runner.ts';

/** The kinds of servers that are to be had here. */
export interface ServerKinds {
  /** What runs code on this kind, whoever asks; undefined where it is not built in. */
  find(type: ServerType): Runner | undefined;
  /**
   * What runs code on this kind, for this user.
   * @throws AppError `validation_failed` (400) where the kind is not to be had here, `scope_required` (403) where
   *   it is not for this user; `keycloak_unavailable` (503).
   */
  get(userId: string, type: ServerType): Promise<Runner>;
}

export interface ServerKindsDeps {
  runners: ReadonlyMap<ServerType, Runner>;
  localExecution: LocalExecution;
}

export function createServerKinds({ runners, localExecution }: ServerKindsDeps): ServerKinds {
  return {
    find: (type) => runners.get(type),
    async get(userId, type) {
      const runner = runners.get(type);
      if (runner === undefined || (type === 'local' && !localExecution.isOn)) throw unavailable(type);
      if (type === 'local' && !(await localExecution.isAllowed(userId))) throw notForYou();
      return runner;
    },
  };
}

function unavailable(type: ServerType): AppError {
  const message =
    type === 'local'
      ? 'Code does not run on this installation itself: its operator has not switched that on (LOCAL_EXECUTION).'
      : `Servers of the kind ${type} are not to be had here.`;
  return new AppError('validation_failed', message, { errors: [{ path: 'server_type', message }] });
}

function notForYou(): AppError {
  return new AppError(
    'scope_required',
    'Running code on this installation itself needs the role ops-operator, which an administrator gives.',
    { extra: { required_role: 'ops-operator' } },
  );
}
