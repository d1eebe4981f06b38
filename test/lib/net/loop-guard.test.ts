import { describe, expect, it } from '@jest/globals';
import { createLoopGuard } from '../../../src/lib/net/loop-guard.ts';

describe('the loop guard', () => {
  const ours = createLoopGuard('a secret');
  const others = createLoopGuard('another secret');
  const loop = expect.objectContaining({ code: 'loop_detected' }) as unknown as Error;

  it('refuses a request that has passed this gateway, also through others', () => {
    expect(() => {
      ours.rejectLoop(ours.extendHeader(undefined));
    }).toThrow(loop);
    expect(() => {
      ours.rejectLoop(others.extendHeader(ours.extendHeader(undefined)));
    }).toThrow(loop);
  });

  it('accepts a request of another deployment, but not after many gateways', () => {
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

  it('ignores forged signatures', () => {
    expect(() => {
      ours.rejectLoop('abc.def, x');
    }).not.toThrow();
  });
});
