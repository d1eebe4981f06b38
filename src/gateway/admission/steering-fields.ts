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

/** True for a field that steers a proxy. @param folded its name as the laxest parsers read it, see `foldName`. */
export function isSteeringField(folded: string): boolean {
  return STEERING_FIELDS.has(folded) || STEERING_PREFIXES.some((prefix) => folded.startsWith(prefix));
}
