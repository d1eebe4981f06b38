// Starts main.ts. Plain JavaScript, because an old Node cannot parse TypeScript and could not print this message.
if (process.versions.node.startsWith('24.')) {
  await import('./main.ts');
} else {
  process.stderr.write(
    `Ops Center needs Node 24; this is Node ${process.versions.node}. See "Try it" in README.md.\n`,
  );
  process.exitCode = 1;
}
