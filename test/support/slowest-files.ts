import path from 'node:path';

/** What jest passes to a reporter at the end, as far as it is read here. */
interface TestResults {
  testResults: readonly { testFilePath: string; perfStats: { runtime: number } }[];
}

const COUNT = 10;

/** A jest reporter: prints the slowest test files after a run of more than ten. */
export default class SlowestFilesReporter {
  onRunComplete(_contexts: unknown, { testResults }: TestResults): void {
    if (testResults.length <= COUNT) return;
    const slowest = testResults.toSorted((a, b) => b.perfStats.runtime - a.perfStats.runtime).slice(0, COUNT);
    const lines = slowest.map(({ testFilePath, perfStats }) => {
      const seconds = (perfStats.runtime / 1000).toFixed(1).padStart(6);
      return `${seconds} s  ${path.relative(process.cwd(), testFilePath)}`;
    });
    process.stderr.write(`[slowest files]\n${lines.join('\n')}\n`);
  }
}
