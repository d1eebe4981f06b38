import { describe, expect, it } from '@jest/globals';
import { createReadinessCheck } from '../../src/health/readiness.ts';

const works = () => Promise.resolve();
const fails = () => Promise.reject(new Error('the details of the failure'));

describe('readiness', () => {
  it('is there when all that is needed works, and names what does not, without its words', async () => {
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

  it('asks once for all who come within a second, however many they are', async () => {
    let asked = 0;
    const check = () => {
      asked += 1;
      return works();
    };
    const readiness = createReadinessCheck([{ name: 'database', check }], () => false);
    await Promise.all(Array.from({ length: 20 }, () => readiness()));
    await readiness();
    expect(asked).toBe(1);
  });

  it('does not wait longer than 3 s for what does not answer', async () => {
    const never = () => new Promise<never>(() => undefined);
    const readiness = createReadinessCheck([{ name: 'keycloak', check: never }], () => false);
    expect(await readiness()).toEqual({ ready: false, details: { keycloak: 'failed' } });
  }, 5_000);

  it('is gone from the moment in which the process is to stop, whatever was asked before', async () => {
    let draining = false;
    const readiness = createReadinessCheck([{ name: 'database', check: works }], () => draining);
    expect((await readiness()).ready).toBe(true);
    draining = true;
    expect(await readiness()).toEqual({ ready: false, details: { database: 'ok' } });
  });
});
