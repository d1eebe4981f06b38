import base from './jest.config.js';

/** Measurements run on the test stack, one after the other, and print tables; they assert nothing about time. */
export default {
  ...base,
  roots: ['<rootDir>/bench'],
  testMatch: ['**/*.bench.ts'],
  maxWorkers: 1,
  testTimeout: 600_000,
};
