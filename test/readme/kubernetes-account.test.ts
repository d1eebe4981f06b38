import { expect, it } from '@jest/globals';
import { loadAllYaml } from '@kubernetes/client-node';
import { readFileSync } from 'node:fs';
import path from 'node:path';

const PROJECT = path.resolve(import.meta.dirname, '..', '..');
const read = (name: string) => readFileSync(path.join(PROJECT, name), 'utf8');

interface Manifest {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
  rules?: { apiGroups: string[]; resources: string[]; verbs: string[] }[];
  roleRef?: { kind: string; name: string };
  subjects?: { kind: string; name: string; namespace: string }[];
}

const yaml = /kubectl apply -f - <<'YAML'\n([\s\S]*?)\nYAML\n/.exec(read('README.md'))?.[1] ?? '';
const manifests = loadAllYaml(yaml) as Manifest[];
const get = (kind: string) => manifests.find((manifest) => manifest.kind === kind);

it('the account of the README has exactly the rights that docs/api.md names', () => {
  const row =
    read('docs/api.md')
      .split('\n')
      .find((line) => line.includes('a Role on `pods`')) ?? '';
  const documented = [...row.matchAll(/`(pods[/a-z]*)` \(([a-z, ]+)\)/g)].map(([, resource, verbs]) => ({
    apiGroups: [''],
    resources: [resource],
    verbs: verbs?.split(', '),
  }));
  expect(documented).toHaveLength(3);
  expect(get('Role')?.rules).toEqual(documented);
});

it('the account of the README has its rights in its namespace only, which is restricted', () => {
  expect(manifests.map(({ kind }) => kind)).toEqual(['Namespace', 'ServiceAccount', 'Role', 'RoleBinding']);
  const namespace = get('Namespace');
  expect(namespace?.metadata.labels).toEqual({ 'pod-security.kubernetes.io/enforce': 'restricted' });
  for (const kind of ['ServiceAccount', 'Role', 'RoleBinding'])
    expect(get(kind)?.metadata.namespace).toBe(namespace?.metadata.name);
  expect(get('RoleBinding')).toMatchObject({
    roleRef: { kind: 'Role', name: get('Role')?.metadata.name },
    subjects: [
      {
        kind: 'ServiceAccount',
        name: get('ServiceAccount')?.metadata.name,
        namespace: namespace?.metadata.name,
      },
    ],
  });
});
