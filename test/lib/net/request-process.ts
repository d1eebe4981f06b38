import { createDialer } from '../../../src/lib/net/dialer.ts';

const dialer = createDialer({
  mode: 'local',
  allow: undefined,
  deny: [],
  forbidden: () => [],
  connectTimeoutMs: 5_000,
});
const results: unknown[] = [];
for (const address of process.argv.slice(2)) {
  const response = dialer.request({
    ...{ url: new URL(address), method: 'GET', headers: {}, isGuarded: true },
    ...{ signal: new AbortController().signal, firstByteTimeoutMs: 5_000, idleTimeoutMs: 5_000 },
  });
  results.push(
    await response.then(
      ({ status }) => status,
      (error: unknown) => (error as { code?: string }).code,
    ),
  );
}
process.stdout.write(JSON.stringify(results));
await dialer.close();
