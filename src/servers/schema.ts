import { z } from 'zod';
import { refuseHiddenCharacters } from '../lib/visible-text.ts';
import { SERVER_TYPES, TEST_STAGES, SERVER_TEST_STATUSES } from '../runners/runner.ts';

/** Replaces stored secrets in responses. Sent back, it keeps the stored secret. */
export const STORED_SECRET_MASK = '***stored***';

/** No configuration nests deeper than a list or a map. */
const MAX_DEPTH = 8;

const timestamp = z.iso.datetime();

const name = z
  .string()
  .trim()
  .min(1, 'must not be empty')
  .max(255, 'must have 255 characters or fewer')
  .superRefine(refuseHiddenCharacters);

const workspacePath = z
  .string()
  .max(500, 'must have 500 characters or fewer')
  .regex(/^\//, 'must be an absolute path, e.g. /home/me/workspace')
  .superRefine(refuseHiddenCharacters)
  .nullable();

/** The members are validated by the runner of the server type. */
const connectionConfig = z
  .record(z.string(), z.unknown())
  .refine((config) => isStorableDeep(config), 'must be valid Unicode without null characters');

const serverType = z.enum(SERVER_TYPES, `must be one of: ${SERVER_TYPES.join(', ')}`);

export const CreateServer = z.strictObject({
  name,
  server_type: serverType,
  connection_config: connectionConfig,
  workspace_path: workspacePath.optional(),
  is_default: z.boolean().optional(),
  is_active: z.boolean().optional(),
  token_runs: z.boolean().optional(),
});
export type CreateServer = z.output<typeof CreateServer>;

/** Missing members stay. The same holds inside `connection_config`, where null clears a member. */
export const UpdateServer = z.strictObject({
  name: name.optional(),
  server_type: serverType.optional(),
  connection_config: connectionConfig.optional(),
  workspace_path: workspacePath.optional(),
  is_default: z.boolean().optional(),
  is_active: z.boolean().optional(),
  token_runs: z.boolean().optional(),
});
export type UpdateServer = z.output<typeof UpdateServer>;

/** As OpenSSH prints it: `ssh-ed25519`, `SHA256:` and 43 characters of base64. */
const hostKey = z.strictObject({
  type: z.string().regex(/^[a-z0-9@.-]{1,64}$/, 'must be a type of host key, e.g. ssh-ed25519'),
  fingerprint: z
    .string()
    .regex(/^SHA256:[A-Za-z0-9+/]{43}$/, 'must be SHA256: and 43 characters of base64, as a test shows it'),
});

/** With `hop`, the id of a jump server, the key belongs to that jump server; otherwise to the server itself. */
export const ConfirmHostKey = hostKey.extend({ hop: z.string().nullish() });
export type ConfirmHostKey = z.output<typeof ConfirmHostKey>;

/** A server that is tested before it is saved. `host_key` is trusted for this test alone. */
export const TestServerDraft = z.strictObject({
  server_type: serverType,
  connection_config: connectionConfig,
  workspace_path: workspacePath.optional(),
  host_key: hostKey.nullish(),
});
export type TestServerDraft = z.output<typeof TestServerDraft>;

export const ServerParams = z.object({ id: z.string() });

const HostKeyView = z.object({ type: z.string(), fingerprint: z.string() });

/** The result of a test, without its status. */
export const ServerTestDetails = z.object({
  stages: z.array(
    z.object({
      name: z.enum(TEST_STAGES),
      status: z.enum(['ok', 'failed', 'skipped']),
      duration_ms: z.number(),
      message: z.string(),
    }),
  ),
  /** The host's key when none is confirmed or it has changed; `hop` is the id of the jump server that has this key. */
  host_key: HostKeyView.extend({ hop: z.string().nullable() }).nullable(),
});
export type ServerTestDetails = z.output<typeof ServerTestDetails>;

const testStatus = z.enum(SERVER_TEST_STATUSES);

/** A server in responses to its owner. A stored secret reads as {@link STORED_SECRET_MASK}. */
export const ServerView = z.object({
  id: z.string(),
  scope: z.literal('personal'),
  name: z.string(),
  server_type: serverType,
  connection_config: z.record(z.string(), z.unknown()),
  workspace_path: z.string().nullable(),
  is_default: z.boolean(),
  is_active: z.boolean(),
  token_runs: z.boolean(),
  version: z.number().int(),
  host_key: HostKeyView.nullable(),
  last_tested_at: timestamp.nullable(),
  last_used_at: timestamp.nullable(),
  test_status: testStatus,
  test_details: ServerTestDetails.extend({ message: z.string() }).nullable(),
  created_at: timestamp,
  updated_at: timestamp,
});
export type ServerView = z.output<typeof ServerView>;

export const ServerDeleted = z.object({ message: z.string(), default_server_id: z.string().nullable() });
export type ServerDeleted = z.output<typeof ServerDeleted>;

export const ServerTestView = z.object({
  status: testStatus,
  message: z.string(),
  details: ServerTestDetails,
});
export type ServerTestView = z.output<typeof ServerTestView>;

/** The private key is in this response only; it is not stored. */
export const SshKeyPair = z.object({ public_key: z.string(), private_key: z.string() });
export type SshKeyPair = z.output<typeof SshKeyPair>;

/** Postgres stores neither null characters nor lone surrogates. */
function isStorable(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0');
}

function isStorableDeep(value: unknown, depth = 0): boolean {
  if (typeof value === 'string') return isStorable(value);
  if (typeof value !== 'object' || value === null) return true;
  if (depth === MAX_DEPTH) return false;
  return Object.entries(value).every(([key, member]) => isStorable(key) && isStorableDeep(member, depth + 1));
}
