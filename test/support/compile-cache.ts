/**
 * For the environment of a command of the product: Node's compile cache of this run, which halves the start of a command.
 * Commands with the environment of the tests have it already.
 */
export function compileCache(): { NODE_COMPILE_CACHE?: string } {
  const folder = process.env['NODE_COMPILE_CACHE'];
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: folder };
}
