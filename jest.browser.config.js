import base from './jest.config.js';

/** Tests of the page in a real browser, on the test stack. */
export default {
  ...base,
  roots: ['<rootDir>/test/browser'],
  testPathIgnorePatterns: [],
  // A browser and an app for each: more on two processors would wait for each other.
  maxWorkers: 2,
  testTimeout: 60_000,
};
