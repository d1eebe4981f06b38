import { ServerResponse, IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import type { Response } from 'express';
import {
  copyResponseHeaders,
  findUpstreamRequestId,
  writeReceiptHeaders,
  type Receipt,
} from '../../../src/gateway/upstream/response-headers.ts';
import { createRedactor } from '../../../src/lib/redact.ts';

const SECRET = 'sk-or-v1/the+secret';

/** The headers of the client's response after those of an upstream were copied. */
function copy(upstreamHeaders: Record<string, string | string[]>, ours: Record<string, string> = {}) {
  const response = new ServerResponse(new IncomingMessage(new Socket()));
  for (const [name, value] of Object.entries(ours)) response.setHeader(name, value);
  copyResponseHeaders(response as unknown as Response, upstreamHeaders, createRedactor([SECRET]));
  return { ...response.getHeaders() };
}

describe('copyResponseHeaders', () => {
  it.each([
    ['x-should-retry', 'true'],
    ['x-should-retry', 'false'],
    ['retry-after-ms', '1500'],
    ['retry-after-ms', '12.5'],
    ['retry-after', 'Wed, 21 Oct 2026 07:28:00 GMT'],
  ])('copies %s: %s', (name, value) => {
    expect(copy({ [name]: value })).toEqual({ [name]: value });
  });

  it.each([
    ['x-should-retry', 'maybe'],
    ['x-should-retry', ''],
    ['retry-after-ms', 'soon'],
    ['retry-after-ms', '-1'],
    ['retry-after-ms', '1e9'],
  ])('drops %s: %s', (name, value) => {
    expect(copy({ [name]: value })).toEqual({});
  });

  it('keeps what the gateway has set', () => {
    expect(copy({ 'x-should-retry': 'true' }, { 'x-should-retry': 'false' })).toEqual({
      'x-should-retry': 'false',
    });
  });

  it('masks a secret in every form, and drops a value that is no header value then', () => {
    expect(copy({ 'x-ratelimit-a': `${encodeURIComponent(SECRET).toLowerCase()} x` })).toEqual({
      'x-ratelimit-a': '*** x',
    });
    expect(copy({ 'x-ratelimit-a': `%0a${encodeURIComponent(SECRET).toLowerCase()}` })).toEqual({});
  });
});

const find = (headers: Record<string, string | string[]>) =>
  findUpstreamRequestId(headers, createRedactor([SECRET]));

describe('findUpstreamRequestId', () => {
  it.each([
    'x-request-id',
    'apim-request-id',
    'x-ms-request-id',
    'x-amzn-requestid',
    'x-generation-id',
    'mistral-correlation-id',
    'x-debug-trace-id',
    'x-ds-trace-id',
    'x-litellm-call-id',
    'cf-ray',
  ])('reads %s', (name) => {
    expect(find({ [name]: 'req_1-a.b:c=/+' })).toBe('req_1-a.b:c=/+');
  });

  it('returns the first safe request id', () => {
    for (const value of ['', 'a b', 'a"b', 'ä', 'x'.repeat(129), SECRET, `id-${SECRET}`])
      expect(find({ 'x-request-id': value, 'cf-ray': 'ray-1' })).toBe('ray-1');
    expect(find({ 'x-request-id': ['a', 'b'] })).toBeNull();
  });
});

describe('writeReceiptHeaders', () => {
  it('removes the request id of an earlier attempt', () => {
    const response = new ServerResponse(new IncomingMessage(new Socket()));
    const receipt: Receipt = {
      ...{ provider: 'openai', model: 'm', scope: 'personal', keyId: 'k', attempts: 1, reason: null },
      endpointSlug: null,
      upstreamRequestId: 'old',
    };
    writeReceiptHeaders(response as unknown as Response, receipt);
    expect(response.getHeader('x-ops-upstream-request-id')).toBe('old');
    writeReceiptHeaders(response as unknown as Response, { ...receipt, upstreamRequestId: null });
    expect(response.getHeader('x-ops-upstream-request-id')).toBeUndefined();
  });
});
