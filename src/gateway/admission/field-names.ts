/**
 * A field's name as the laxest reader compares it: Go's `encoding/json` and .NET take another letter case for
 * the same name, and Go also `ſ` (U+017F) for `s` and the Kelvin sign (U+212A) for `k`, by Unicode's simple
 * case folding.
 */
export function foldName(name: string): string {
  return name.toUpperCase().toLowerCase();
}

/**
 * Fields by which a body steers a proxy (LiteLLM and its like) to another address, key or configuration.
 * Credentials come from the vault or the operator, never from a request.
 */
const STEERING_FIELDS = new Set([
  'api_base',
  'api_key',
  'api_type',
  'api_version',
  'base_url',
  'custom_llm_provider',
  'extra_body',
  'extra_headers',
  'extra_query',
  'fallbacks',
  'headers',
  'model_info',
  'model_list',
  'router_settings_override',
  'user_config',
]);

/** The proxy's own settings, and the credentials and addresses of clouds: whatever follows. */
const STEERING_PREFIXES = ['litellm_', 'aws_', 'vertex_', 'azure_'];

/** True for a field that could steer an upstream which is a proxy. */
export function isSteeringField(name: string): boolean {
  const folded = foldName(name);
  return STEERING_FIELDS.has(folded) || STEERING_PREFIXES.some((prefix) => folded.startsWith(prefix));
}
