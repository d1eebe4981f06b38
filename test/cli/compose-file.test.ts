import { readFile } from 'node:fs/promises';
import { beforeAll, expect, it } from '@jest/globals';
import { z } from 'zod';
import { parseYaml } from '../../src/runners/kubernetes/yaml.ts';

const ComposeFile = z.object({
  services: z.record(
    z.string(),
    z.object({
      mem_limit: z.string().optional(),
      environment: z.record(z.string(), z.string()).optional(),
      depends_on: z.record(z.string(), z.object({ condition: z.string() })).optional(),
    }),
  ),
});

let services: z.output<typeof ComposeFile>['services'];

beforeAll(async () => {
  ({ services } = ComposeFile.parse(await parseYaml(await readFile('docker-compose.yml', 'utf8'))));
});

it('limits the memory of every service', () => {
  const limits = Object.entries(services).map(([name, { mem_limit }]) => [name, mem_limit]);
  expect(limits).toEqual(limits.map(([name]) => [name, expect.stringMatching(/^\d+[mg]$/)]));
  expect(limits.length).toBeGreaterThan(5);
});

it('gives the password of the schema owner only to the services that prepare the database', () => {
  const names = Object.entries(services).flatMap(([name, { environment = {} }]) =>
    JSON.stringify(environment).includes('POSTGRES_OWNER_PASSWORD') ? [name] : [],
  );
  expect(names).toEqual(['prepare-database', 'migrate']);
  expect(services['app']?.depends_on).toMatchObject({
    migrate: { condition: 'service_completed_successfully' },
  });
});
