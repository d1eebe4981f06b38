import type { LocalExecution } from '../identity/service.ts';
import { AppError } from '../lib/errors.ts';
import type { Runner, ServerType } from '../runners/runner.ts';

/** The runners of this installation, and which users may use them. */
export interface RunnerAccess {
  /** The runner of a server type, without a check of rights; undefined when the type is not built in. */
  findRunner(type: ServerType): Runner | undefined;
  /**
   * The runner of a server type, for a user.
   * @throws AppError `validation_failed` (400) when the type is not available on this installation, `scope_required`
   *   (403) when the user may not use it; `keycloak_unavailable` (503).
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
      ? 'Server type local is not available, because LOCAL_EXECUTION is off. Use another server type, or ask the operator to switch it on.'
      : `Server type ${type} is not available on this installation.`;
  return new AppError('validation_failed', message, { errors: [{ path: 'server_type', message }] });
}

function operatorRoleRequired(): AppError {
  return new AppError(
    'scope_required',
    'Local execution needs the role ops-operator. Ask an administrator for it, or use another server type.',
    { extra: { required_role: 'ops-operator' } },
  );
}
