// Starts main.ts. Plain JavaScript, because an old Node cannot parse TypeScript and could not print this message.
if (process.versions.node.startsWith('24.')) {
  await import('./main.ts');
} else {
  process.stderr.write(
    `Ops Center needs Node 24; this is Node ${process.versions.node}. Install Node 24, or on Linux run "npm ci", which installs it for the npm scripts.\n`,
  );
  process.exitCode = 1;
}
