import { describe, expect, it } from '@jest/globals';
import { explainDecision } from '../../../src/gateway/routing/decision-view.ts';

describe('the sentence about the next chat request', () => {
  it.each([
    ['model_missing', 'has no default model'],
    ['ambiguous_model', 'Several of your keys serve the default model'],
    ['no_default_provider', 'add a key'],
  ] as const)('after %s says what to do', (code, text) => {
    const decision = { kind: 'refused', code, provider: null, model: 'm', candidates: [] } as const;
    expect(explainDecision(decision)).toContain(text);
  });
});
