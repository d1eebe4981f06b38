// Starts main.ts. Plain JavaScript, since a Node that is too old cannot read the TypeScript that would say so.
if (process.versions.node.startsWith('24.')) {
  await import('./main.ts');
} else {
  process.stderr.write(
    `Ops Center needs Node 24; this is Node ${process.versions.node}. See "Try it" in README.md.\n`,
  );
  process.exitCode = 1;
}
