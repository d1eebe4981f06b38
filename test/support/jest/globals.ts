import { testGlobals } from './globals-of-file.ts';

/** Replaces `@jest/globals` in test files, each of which has a copy of this module. */
export const { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest, test } = testGlobals();
