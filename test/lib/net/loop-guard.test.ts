import { describe, expect, it } from '@jest/globals';
import { createLoopGuard } from '../../../src/lib/net/loop-guard.ts';

describe('hops', () => {
  const ours = createLoopGuard('a secret');
  const others = createLoopGuard('another secret');
  const loop = expect.objectContaining({ code: 'loop_detected' }) as unknown as Error;

  it('refuses a request that has passed here, also when others stand between', () => {
    expect(() => {
      ours.rejectLoop(ours.extendHeader(undefined));
    }).toThrow(loop);
    expect(() => {
      ours.rejectLoop(others.extendHeader(ours.extendHeader(undefined)));
    }).toThrow(loop);
  });

  it('admits a request from another deployment, but not through many', () => {
    expect(() => {
      ours.rejectLoop(undefined);
    }).not.toThrow();
    const once = others.extendHeader(undefined);
    expect(() => {
      ours.rejectLoop(once);
    }).not.toThrow();
    const often = [1, 2, 3].reduce((header) => others.extendHeader(header), once);
    expect(() => {
      ours.rejectLoop(often);
    }).toThrow(loop);
  });

  it('is not fooled by a forged signature', () => {
    expect(() => {
      ours.rejectLoop('abc.def, x');
    }).not.toThrow();
  });
});
