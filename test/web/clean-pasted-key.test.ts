import { expect, it } from '@jest/globals';
import { cleanPastedKey } from '../../src/web/pages/keys/clean-pasted-key.ts';

it.each([
  ['the key alone', 'sk-abc_123'],
  ['spaces and a newline', '  sk-abc_123 \n'],
  ['a line break within', 'sk-abc\n_123'],
  ['double quotes', '"sk-abc_123"'],
  ['single quotes', "'sk-abc_123'"],
  ['typographic quotes', '“sk-abc_123”'],
  ['backticks', '`sk-abc_123`'],
  ['a scheme', 'Bearer sk-abc_123'],
  ['a header', 'Authorization: Bearer sk-abc_123'],
  ['another header', 'x-api-key: sk-abc_123'],
  ['a name', 'OPENAI_API_KEY=sk-abc_123'],
  ['a name with quotes', 'OPENAI_API_KEY="sk-abc_123"'],
  ['an export', 'export OPENAI_API_KEY=sk-abc_123'],
  ['an export with quotes and a semicolon', "export OPENAI_API_KEY='sk-abc_123';"],
  ['a setting of PowerShell', '$env:OPENAI_API_KEY = "sk-abc_123"'],
  ['a member of JSON', '"api_key": "sk-abc_123",'],
])('takes the key out of %s', (_what, text) => {
  expect(cleanPastedKey(text)).toBe('sk-abc_123');
});

it.each(['', 'gsk_AbC-1.2', 'key==', 'a.b:c', 'sk-ant-api03-x_y-z'])('leaves %j as it is', (text) => {
  expect(cleanPastedKey(text)).toBe(text);
});
