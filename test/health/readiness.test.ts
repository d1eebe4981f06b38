import { describe, expect, it } from '@jest/globals';
import { createReadinessCheck } from '../../src/health/readiness.ts';

const works = () => Promise.resolve();
const fails = () => Promise.reject(new Error('the details of the failure'));

describe('readiness', () => {
  it('requires all dependencies and names a failed one without its error message', async () => {
    const ready = createReadinessCheck(
      [
        { name: 'database', check: works },
        { name: 'keycloak', check: works },
      ],
      () => false,
    );
    expect(await ready()).toEqual({ ready: true, details: { database: 'ok', keycloak: 'ok' } });
    const notReady = createReadinessCheck(
      [
        { name: 'database', check: works },
        { name: 'keycloak', check: fails },
      ],
      () => false,
    );
    expect(await notReady()).toEqual({ ready: false, details: { database: 'ok', keycloak: 'failed' } });
  });

  it('checks once a second for any number of callers', async () => {
    let checks = 0;
    const check = () => {
      checks += 1;
      return works();
    };
    const readiness = createReadinessCheck([{ name: 'database', check }], () => false);
    await Promise.all(Array.from({ length: 20 }, () => readiness()));
    await readiness();
    expect(checks).toBe(1);
  });

  it('waits at most 3 s for a dependency', async () => {
    const never = () => new Promise<never>(() => undefined);
    const readiness = createReadinessCheck([{ name: 'keycloak', check: never }], () => false);
    expect(await readiness()).toEqual({ ready: false, details: { keycloak: 'failed' } });
  }, 5_000);

  it('ends as soon as the process drains, even when the last check is cached', async () => {
    let draining = false;
    const readiness = createReadinessCheck([{ name: 'database', check: works }], () => draining);
    expect((await readiness()).ready).toBe(true);
    draining = true;
    expect(await readiness()).toEqual({ ready: false, details: { database: 'ok' } });
  });
});
