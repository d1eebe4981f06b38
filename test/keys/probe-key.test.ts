import { describe, expect, it } from '@jest/globals';
import { createProbeKey } from '../../src/keys/probe-key.ts';

describe('a probe key', () => {
  it.each([
    ['sk-or-v1-0123456789abcdef0123456789abcdef', /^sk-or-v1-[0-9a-f]{32}$/],
    ['0123456789abcdef0123456789abcdef', /^[0-9a-f]{32}$/],
    ['sk-proj-Abc9Abc9Abc9_Abc9', /^sk-[a-z]{4}-([A-Z][a-z]{2}\d){3}_[A-Z][a-z]{2}\d$/],
    ['p@ss/w0rd+with=signs', /^[a-z]@[a-z]{2}\/[a-z]\d[a-z]{2}\+[a-z]{4}=[a-z]{5}$/],
    ['---', /^[A-Za-z0-9]{3}$/],
    ['7', /^\d$/],
  ])('has the format and length of %s, and differs from it', (key, format) => {
    for (let count = 0; count < 50; count += 1) {
      const probe = createProbeKey(key);
      expect(probe).toMatch(format);
      expect(probe).not.toBe(key);
    }
  });

  it('keeps no prefix of a short key, since that could be the whole key', () => {
    expect(createProbeKey('team-x1')).toMatch(/^[a-z]{4}-[a-z]\d$/);
    const probes = Array.from({ length: 20 }, () => createProbeKey('team-x1'));
    expect(probes.filter((probe) => probe.startsWith('team'))).toEqual([]);
  });

  it('keeps no part of a key that only looks like it has a prefix', () => {
    for (const key of ['550e8400-e29b-41d4-a716-446655440000', 'abcd1234_efgh5678_ijkl9012_mnop3456']) {
      const probes = Array.from({ length: 20 }, () => createProbeKey(key));
      expect(probes.filter((probe) => probe.startsWith(key.slice(0, 8)))).toEqual([]);
    }
  });

  it('differs each time', () => {
    const probes = Array.from({ length: 20 }, () => createProbeKey('sk-0123456789abcdef'));
    expect(new Set(probes).size).toBe(20);
  });
});
