/**
 * Adds keys for one user until it is killed. The parent process forwards its calls to Keycloak and kills it at a
 * chosen call. The id of each confirmed key is printed, one per line.
 */
import { createInstance, createPrincipal, randomKey, type InstanceOptions } from './instance.ts';

const { userId, ...options } = JSON.parse(process.env['WRITER_OPTIONS'] ?? '') as InstanceOptions & {
  userId: string;
};
const instance = createInstance(options);
for (;;) {
  const { key } = await instance.keys.add(
    createPrincipal(userId),
    { provider: 'openai', key: randomKey(), label: null, endpoint: null },
    'writer',
  );
  process.stdout.write(`${key.id}\n`);
}
