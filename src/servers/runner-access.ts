import type { LocalExecution } from '../identity/service.ts';
import { AppError } from '../lib/errors.ts';
import type { Runner, ServerType } from '../runners/runner.ts';

/** The kinds of servers that are to be had here. */
export interface RunnerAccess {
  /** What runs code on this kind, whoever asks; undefined where it is not built in. */
  findRunner(type: ServerType): Runner | undefined;
  /**
   * What runs code on this kind, for this user.
   * @throws AppError `validation_failed` (400) where the kind is not to be had here, `scope_required` (403) where
   *   it is not for this user; `keycloak_unavailable` (503).
   */
  getAllowedRunner(userId: string, type: ServerType): Promise<Runner>;
}

export interface RunnerAccessDeps {
  runners: ReadonlyMap<ServerType, Runner>;
  localExecution: LocalExecution;
}

export function createRunnerAccess({ runners, localExecution }: RunnerAccessDeps): RunnerAccess {
  return {
    findRunner: (type) => runners.get(type),
    async getAllowedRunner(userId, type) {
      const runner = runners.get(type);
      if (runner === undefined || (type === 'local' && !localExecution.isOn)) throw typeUnavailable(type);
      if (type === 'local' && !(await localExecution.isAllowed(userId))) throw operatorRoleRequired();
      return runner;
    },
  };
}

function typeUnavailable(type: ServerType): AppError {
  const message =
    type === 'local'
      ? 'Code does not run on this installation itself: its operator has not switched that on (LOCAL_EXECUTION).'
      : `Servers of the kind ${type} are not to be had here.`;
  return new AppError('validation_failed', message, { errors: [{ path: 'server_type', message }] });
}

function operatorRoleRequired(): AppError {
  return new AppError(
    'scope_required',
    'Running code on this installation itself needs the role ops-operator, which an administrator gives.',
    { extra: { required_role: 'ops-operator' } },
  );
}
