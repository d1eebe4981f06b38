import { setTimeout as timersSetTimeout } from 'node:timers';
import { afterEach, describe, expect, it } from '@jest/globals';
import type { JestEnvironmentConfig } from '@jest/environment';
import ProcessEnvironment from './support/jest/environment.ts';
import { testGlobals } from './support/jest/globals-of-file.ts';

const VARIABLE = 'OPS_TEST_OF_THE_ENVIRONMENT';
const projectConfig = { fakeTimers: {} } as JestEnvironmentConfig['projectConfig'];

afterEach(() => {
  Reflect.deleteProperty(process.env, VARIABLE);
});

describe('what a test file leaves behind', () => {
  it('is undone at its end: variables, console, mocks and fake timers', async () => {
    const { now } = Date;
    const before = { console: globalThis.console, path: process.env['PATH'], directory: process.cwd() };
    const environment = new ProcessEnvironment({ projectConfig });
    const { jest } = testGlobals();
    process.env[VARIABLE] = 'left';
    delete process.env['PATH'];
    process.chdir('/');
    jest.spyOn(Date, 'now').mockReturnValue(0);
    jest.useFakeTimers();
    Object.assign(globalThis, { console: {} });

    await environment.teardown();

    expect(process.env).not.toHaveProperty(VARIABLE);
    expect(process.env['PATH']).toBe(before.path);
    expect(process.cwd()).toBe(before.directory);
    expect(globalThis.console).toBe(before.console);
    expect(Date.now).toBe(now);
    expect(globalThis.setTimeout).toBe(timersSetTimeout);
  });
});

it('a test file has its own copies of the modules of tests, and none of the product', () => {
  expect(import.meta.url).toMatch(/\?test-file=\d+$/);
  expect(import.meta.resolve('./support/evidence.ts')).toMatch(/\?test-file=\d+$/);
  expect(import.meta.resolve('../src/lib/ids.ts')).toMatch(/\/ids\.ts$/);
});
