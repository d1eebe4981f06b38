/**
 * Adds keys for one person until it is killed. Its parent sees every call to Keycloak pass by and so
 * knows when to kill; what was confirmed is printed, one key id to a line.
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
