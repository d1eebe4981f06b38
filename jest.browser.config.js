import base from './jest.config.js';

/** Tests of the page in a real browser, on the test stack. */
export default {
  ...base,
  roots: ['<rootDir>/test/browser'],
  testPathIgnorePatterns: [],
  globalSetup: '<rootDir>/test/support/page/global-setup.ts',
  globalTeardown: '<rootDir>/test/support/page/global-teardown.ts',
  // Each has an app of its own and a part of one browser: more on two processors would wait for each other.
  maxWorkers: 2,
  testTimeout: 60_000,
};
