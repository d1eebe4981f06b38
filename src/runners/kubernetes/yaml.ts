import { parseJson } from '../../lib/json.ts';

/**
 * Parses YAML or JSON. JSON is parsed by Node alone.
 * The YAML parser is that of the Kubernetes client, loaded on first use. It builds plain data only. Aliases
 * become references, not copies, so that a text cannot grow by them. Callers must only visit
 * declared members.
 * @returns undefined for a text that is neither.
 */
export async function parseYaml(text: string): Promise<unknown> {
  const json = parseJson(text);
  if (json !== undefined) return json;
  const { loadYaml } = await import('@kubernetes/client-node/dist/yaml.js');
  try {
    return loadYaml<unknown>(text);
  } catch {
    // Also for thousands of nested lists: the parser limits the depth.
    return undefined;
  }
}
