import { parseJson } from '../../lib/json.ts';

/**
 * Reads a document of YAML, of which JSON is a part: JSON needs no more than Node.
 * The parser is the Kubernetes client's, loaded when first needed; it builds plain data only. Aliases become
 * references, not copies, so a text cannot grow by them: whoever reads the result visits declared members only.
 * @returns undefined for a text that is neither.
 */
export async function parseYaml(text: string): Promise<unknown> {
  const json = parseJson(text);
  if (json !== undefined) return json;
  const { loadYaml } = await import('@kubernetes/client-node/dist/yaml.js');
  try {
    return loadYaml<unknown>(text);
  } catch {
    // Lists in lists by the thousand among them: the parser, too, knows a depth.
    return undefined;
  }
}
