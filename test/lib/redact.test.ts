import { describe, expect, it } from '@jest/globals';
import { createRedactor } from '../../src/lib/redact.ts';

describe('createRedactor', () => {
  const secret = 'sk-"quoted"/+key\\with ü';

  it.each([
    ['raw', secret],
    ['JSON', JSON.stringify(secret)],
    ['base64', Buffer.from(secret).toString('base64')],
    ['base64url', Buffer.from(secret).toString('base64url')],
    ['percent', encodeURIComponent(secret)],
  ])('removes a secret in %s form', (_form, text) => {
    const cleaned = createRedactor([secret])(`before ${text} after`);
    expect(cleaned).toMatch(/^before .*\*\*\*.* after$/);
    expect(cleaned).not.toContain(text.replace(/^"|"$|=+$/g, ''));
  });

  it('does not change other text, nor text with a value that is too short for a secret', () => {
    expect(createRedactor(['', 'ab', secret])('abc and what else')).toBe('abc and what else');
  });
});
