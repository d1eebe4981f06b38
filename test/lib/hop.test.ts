import { describe, expect, it } from '@jest/globals';
import { createHops } from '../../src/lib/hop.ts';

describe('hops', () => {
  const ours = createHops('a secret');
  const others = createHops('another secret');
  const loop = expect.objectContaining({ code: 'loop_detected' }) as unknown as Error;

  it('refuses a request that has passed here, also when others stand between', () => {
    expect(() => {
      ours.refuseLoop(ours.extend(undefined));
    }).toThrow(loop);
    expect(() => {
      ours.refuseLoop(others.extend(ours.extend(undefined)));
    }).toThrow(loop);
  });

  it('admits a request from another deployment, but not through many', () => {
    expect(() => {
      ours.refuseLoop(undefined);
    }).not.toThrow();
    const once = others.extend(undefined);
    expect(() => {
      ours.refuseLoop(once);
    }).not.toThrow();
    const often = [1, 2, 3].reduce((header) => others.extend(header), once);
    expect(() => {
      ours.refuseLoop(often);
    }).toThrow(loop);
  });

  it('is not fooled by a forged signature', () => {
    expect(() => {
      ours.refuseLoop('abc.def, x');
    }).not.toThrow();
  });
});
