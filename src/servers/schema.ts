import { z } from 'zod';
import { SERVER_TYPES, TEST_STAGES, SERVER_TEST_STATUSES } from '../runners/runner.ts';

/** What a stored secret reads as, and what keeps it when it is sent back. */
export const STORED_SECRET_MASK = '***stored***';

/** No kind of server nests deeper than a list or a map. */
const MAX_DEPTH = 8;

const timestamp = z.iso.datetime();

const name = z
  .string()
  .trim()
  .min(1, 'must not be empty')
  .max(255, 'must have 255 characters or fewer')
  .regex(/^\P{Cc}*$/u, 'must not contain control characters')
  .refine(isStorable, 'must be valid Unicode');

const workspacePath = z
  .string()
  .max(500, 'must have 500 characters or fewer')
  .regex(/^\/\P{Cc}*$/u, 'must be an absolute path, e.g. /home/me/workspace, without control characters')
  .refine(isStorable, 'must be valid Unicode')
  .nullable();

/** What its members must be is for the kind of server to say. */
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
});
export type CreateServer = z.output<typeof CreateServer>;

/** What is missing stays; in `connection_config`, too, where null clears a member. */
export const UpdateServer = z.strictObject({
  name: name.optional(),
  server_type: serverType.optional(),
  connection_config: connectionConfig.optional(),
  workspace_path: workspacePath.optional(),
  is_default: z.boolean().optional(),
  is_active: z.boolean().optional(),
});
export type UpdateServer = z.output<typeof UpdateServer>;

/** As OpenSSH prints them: `ssh-ed25519`, `SHA256:` and 43 characters of base64. */
const hostKey = z.strictObject({
  type: z.string().regex(/^[a-z0-9@.-]{1,64}$/, 'must be a type of host key, e.g. ssh-ed25519'),
  fingerprint: z
    .string()
    .regex(/^SHA256:[A-Za-z0-9+/]{43}$/, 'must be SHA256: and 43 characters of base64, as a test shows it'),
});

/** `hop` is the id of the jump server whose key it is; without it, it is the server's own. */
export const ConfirmHostKey = hostKey.extend({ hop: z.string().nullish() });
export type ConfirmHostKey = z.output<typeof ConfirmHostKey>;

/** A server that is tested before it is saved. `host_key` is trusted for this test alone. */
export const TestUnsavedServer = z.strictObject({
  server_type: serverType,
  connection_config: connectionConfig,
  workspace_path: workspacePath.optional(),
  host_key: hostKey.nullish(),
});
export type TestUnsavedServer = z.output<typeof TestUnsavedServer>;

export const ServerParams = z.object({ id: z.string() });

const HostKeyView = z.object({ type: z.string(), fingerprint: z.string() });

/** What a test found, beside its status. */
export const ServerTestDetails = z.object({
  stages: z.array(
    z.object({
      name: z.enum(TEST_STAGES),
      status: z.enum(['ok', 'failed', 'skipped']),
      duration_ms: z.number(),
      message: z.string(),
    }),
  ),
  /** The key that was shown where none is confirmed or it has changed; `hop` is the jump server that showed it. */
  host_key: HostKeyView.extend({ hop: z.string().nullable() }).nullable(),
});
export type ServerTestDetails = z.output<typeof ServerTestDetails>;

const testStatus = z.enum(SERVER_TEST_STATUSES);

/** A server as its owner sees it; a stored secret reads as {@link STORED_SECRET_MASK}. */
export const ServerView = z.object({
  id: z.string(),
  scope: z.literal('personal'),
  name: z.string(),
  server_type: serverType,
  connection_config: z.record(z.string(), z.unknown()),
  workspace_path: z.string().nullable(),
  is_default: z.boolean(),
  is_active: z.boolean(),
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

/** The one time that the private half is shown; it is stored nowhere. */
export const SshKeyPair = z.object({ public_key: z.string(), private_key: z.string() });
export type SshKeyPair = z.output<typeof SshKeyPair>;

/** Postgres takes neither null characters nor halves of surrogate pairs. */
function isStorable(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0');
}

function isStorableDeep(value: unknown, depth = 0): boolean {
  if (typeof value === 'string') return isStorable(value);
  if (typeof value !== 'object' || value === null) return true;
  if (depth === MAX_DEPTH) return false;
  return Object.entries(value).every(([key, member]) => isStorable(key) && isStorableDeep(member, depth + 1));
}
