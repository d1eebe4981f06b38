import type { JestEnvironmentConfig } from '@jest/environment';
import { ModernFakeTimers } from '@jest/fake-timers';
import { ModuleMocker } from 'jest-mock';
import { setJestObject } from './globals-of-file.ts';

const TEST_TIMEOUT = Symbol.for('TEST_TIMEOUT_SYMBOL');

/** The process itself as jest's environment of a test file. Undoes at its end what the file and jest changed in it. */
export default class ProcessEnvironment {
  readonly global = globalThis;
  readonly moduleMocker = new ModuleMocker(globalThis);
  readonly fakeTimers = null;
  readonly fakeTimersModern: ModernFakeTimers;
  readonly #before = {
    console: globalThis.console,
    exit: process.exit.bind(process),
    variables: { ...process.env },
    directory: process.cwd(),
  };

  constructor({ projectConfig }: Pick<JestEnvironmentConfig, 'projectConfig'>) {
    const timers = new ModernFakeTimers({ config: projectConfig, global: globalThis });
    const mocker = this.moduleMocker;
    this.fakeTimersModern = timers;
    setJestObject({
      fn: mocker.fn.bind(mocker),
      spyOn: mocker.spyOn.bind(mocker),
      restoreAllMocks: mocker.restoreAllMocks.bind(mocker),
      setTimeout: (ms: number) => Reflect.set(globalThis, TEST_TIMEOUT, ms),
      useFakeTimers: timers.useFakeTimers.bind(timers),
      useRealTimers: timers.useRealTimers.bind(timers),
      advanceTimersByTime: timers.advanceTimersByTime.bind(timers),
      advanceTimersByTimeAsync: timers.advanceTimersByTimeAsync.bind(timers),
    });
  }

  setup(): Promise<void> {
    return Promise.resolve();
  }

  teardown(): Promise<void> {
    const { console, exit, variables, directory } = this.#before;
    this.fakeTimersModern.dispose();
    this.moduleMocker.restoreAllMocks();
    for (const name of Object.keys(process.env))
      if (!(name in variables)) Reflect.deleteProperty(process.env, name);
    Object.assign(process.env, variables);
    if (process.cwd() !== directory) process.chdir(directory);
    process.exit = exit;
    globalThis.console = console;
    return Promise.resolve();
  }

  /** jest requires it for modules in a `node:vm` context; there is none. */
  getVmContext(): null {
    return null;
  }
}
