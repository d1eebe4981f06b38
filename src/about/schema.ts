import { z } from 'zod';

/** What every signed-in user may know of the installation. */
export const About = z.object({
  version: z.string(),
  mode: z.enum(['local', 'deployed']),
  public_url: z.string(),
  realm: z.string(),
  /** Keycloak's account console, where users change their password and see signed-in devices. */
  account_url: z.string(),
  /** Whether users with the role `ops-operator` may run code on the machine of the app. */
  local_execution: z.boolean(),
  retention: z.object({ audit_days: z.number(), usage_days: z.number(), run_history_days: z.number() }),
});
export type About = z.output<typeof About>;

/** What only users with the role `ops-operator` may know. */
export const OperatorView = z.object({
  findings: z.array(
    z.object({
      level: z.enum(['ok', 'warning', 'error']),
      check: z.string(),
      detail: z.string(),
      /** What an administrator changes; empty where nothing is wrong. */
      fix: z.string(),
    }),
  ),
  /** Who answers where a user has no key; null when the operator pays for nothing. */
  system_default: z
    .object({
      provider: z.string(),
      model: z.string().nullable(),
      /** The models that it may be asked for; `*` for any. */
      models: z.array(z.string()),
    })
    .nullable(),
});
