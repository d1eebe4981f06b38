import path from 'node:path';
import { expect, it } from '@jest/globals';
import { toTestFiles } from './support/test-files.ts';

it('a list of test files names existing ones only', () => {
  expect(toTestFiles(['test-files.test.ts'])).toEqual([path.join(import.meta.dirname, 'test-files.test.ts')]);
  const names = ['test-files.test.ts', 'renamed.test.ts', 'gone/away.test.ts'];
  expect(() => toTestFiles(names)).toThrow(/: renamed\.test\.ts, gone\/away\.test\.ts$/);
});
