/** Prints measurements as a table; times in milliseconds. */
export function printTimes(title: string, rows: Record<string, readonly number[]>): void {
  const lines = Object.entries(rows).map(([name, times]) => {
    const sorted = [...times].sort((a, b) => a - b);
    const at = (share: number) =>
      (sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN).toFixed(1);
    return `${name.padEnd(56)} n=${String(sorted.length).padStart(3)}  p50 ${at(0.5).padStart(7)}  p99 ${at(0.99).padStart(7)}  worst ${at(1).padStart(7)}`;
  });
  process.stdout.write(`\n${title} (ms)\n${lines.join('\n')}\n`);
}
