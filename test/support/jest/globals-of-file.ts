import type * as Globals from '@jest/globals';

let jestObject: object = {};
let framework: object = {};

/** @param object the `jest` object for the next test file, as far as tests use it. */
export function setJestObject(object: object): void {
  jestObject = object;
}

/** @param globals `describe`, `it`, `expect` and the like of the test file that is loaded next. */
export function setTestGlobals(globals: object): void {
  framework = globals;
}

/** What `@jest/globals` exports for the current test file. */
export function testGlobals(): typeof Globals {
  return { ...framework, jest: jestObject } as typeof Globals;
}
