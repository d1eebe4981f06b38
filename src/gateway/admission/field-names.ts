/**
 * Folds a field name as the laxest parsers do. Go's `encoding/json` and .NET ignore letter case; Go also matches `ſ`
 * (U+017F) with `s` and the Kelvin sign (U+212A) with `k`, by Unicode simple case folding.
 */
export function foldName(name: string): string {
  return name.toUpperCase().toLowerCase();
}

/**
 * Fields that make a proxy such as LiteLLM use another address, key or configuration. Credentials come from the vault
 * or the operator, never from a request.
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

/** Prefixes of proxy settings and of cloud credentials and addresses. */
const STEERING_PREFIXES = ['litellm_', 'aws_', 'vertex_', 'azure_'];

/** True for a field that could steer an upstream proxy. */
export function isSteeringField(name: string): boolean {
  const folded = foldName(name);
  return STEERING_FIELDS.has(folded) || STEERING_PREFIXES.some((prefix) => folded.startsWith(prefix));
}
