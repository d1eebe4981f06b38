/** Prints measurements as a table; times in milliseconds. */
export function printTimes(title: string, rows: Record<string, readonly number[]>): void {
  const lines = Object.entries(rows).map(([name, times]) => {
    const at = (share: number) => findQuantile(times, share).toFixed(1).padStart(7);
    const count = String(times.length).padStart(3);
    return `${name.padEnd(56)} n=${count}  p50 ${at(0.5)}  p99 ${at(0.99)}  worst ${at(1)}`;
  });
  process.stdout.write(`\n${title} (ms)\n${lines.join('\n')}\n`);
}

/** Prints how many times as long the median and the worst time of `during` are as those of `without`. */
export function printRatios(during: readonly number[], without: readonly number[]): void {
  const at = (share: number) => (findQuantile(during, share) / findQuantile(without, share)).toFixed(2);
  process.stdout.write(`during / without: p50 ${at(0.5)}, worst ${at(1)}\n`);
}

function findQuantile(times: readonly number[], share: number): number {
  const sorted = [...times].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
}

/** One measurement of requests through one gateway. */
export interface Cost {
  requests: number;
  /** Processor time of the gateway for one request. */
  cpuUs: number;
  /** Some requests, in ms. */
  times: readonly number[];
}

/** Prints for each row the median of its measurements, with the lowest and the highest. */
export function printCosts(title: string, rows: ReadonlyMap<string, readonly Cost[]>): void {
  const lines = [...rows].map(([name, costs]) => {
    const cpuUs = costs.map((cost) => cost.cpuUs);
    const [least, median, most] = [0, 0.5, 1].map((share) => findQuantile(cpuUs, share).toFixed(0));
    const requests = costs.reduce((sum, cost) => sum + cost.requests, 0);
    const times = costs.flatMap((cost) => cost.times);
    const at = (share: number) => findQuantile(times, share).toFixed(1).padStart(6);
    const cpu = `CPU ${String(median).padStart(4)} us (${least} to ${most})`.padEnd(26);
    return `${name.padEnd(24)} n=${String(requests).padStart(6)}  ${cpu} p50 ${at(0.5)} ms  p99 ${at(0.99)} ms`;
  });
  process.stdout.write(`\n${title}\n${lines.join('\n')}\n`);
}
