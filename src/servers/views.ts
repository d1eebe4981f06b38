import type { Runner, ServerTestResult } from '../runners/runner.ts';
import { STORED_SECRET_MASK, type ServerTestView, type ServerView } from './schema.ts';
import { listSecretFields } from './secret-encryption.ts';
import type { StoredServer } from './servers-store.ts';

/**
 * The response for a server. It shows whether a secret is stored, and nothing else of the secret.
 * @param runner undefined when the server type is not built in. The configuration is then omitted, because its secret
 *   members are unknown.
 */
export function toServerView(server: StoredServer, runner: Runner | undefined): ServerView {
  return {
    id: server.id,
    scope: 'personal',
    name: server.name,
    server_type: server.serverType,
    connection_config: runner === undefined ? {} : toConfigView(server, runner),
    workspace_path: server.workspacePath,
    is_default: server.isDefault,
    is_active: server.isActive,
    token_runs: server.tokenRuns,
    version: server.version,
    host_key: server.hostKey,
    last_tested_at: server.lastTestedAt?.toISOString() ?? null,
    last_used_at: server.lastUsedAt?.toISOString() ?? null,
    test_status: server.testStatus,
    test_details: server.testDetails,
    created_at: server.createdAt.toISOString(),
    updated_at: server.updatedAt.toISOString(),
  };
}

function toConfigView({ config }: StoredServer, runner: Runner): Record<string, unknown> {
  const stored = new Set(listSecretFields(runner, config));
  const view = { ...config };
  for (const field of runner.secretFields) view[field] = stored.has(field) ? STORED_SECRET_MASK : null;
  return view;
}

/** The response for a test. */
export function toServerTestView({ status, message, stages, hostKey }: ServerTestResult): ServerTestView {
  return {
    status,
    message,
    details: {
      stages: stages.map((stage) => ({
        name: stage.name,
        status: stage.status,
        duration_ms: Math.round(stage.durationMs),
        message: stage.message,
      })),
      host_key: hostKey,
    },
  };
}
