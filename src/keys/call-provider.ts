import { randomInt } from 'node:crypto';
import type { Dialer, UpstreamResponse } from '../lib/net/dialer.ts';
import { isAppError } from '../lib/errors.ts';
import { LOOP_HEADER, type LoopGuard } from '../lib/net/loop-guard.ts';
import { parseJson } from '../lib/json.ts';
import { createRateLimit, type RateLimit } from '../lib/rate-limit.ts';
import { discardBody, isIdentityEncoded, readBoundedBody } from '../lib/net/upstream-body.ts';
import { findKeyAddress, type OperatorUpstreams, type UpstreamAddress } from '../providers/address.ts';
import { PROVIDERS } from '../providers/index.ts';
import { toKeyTestOutcome, unexpectedBodyOutcome } from '../providers/key-test.ts';
import type { Provider, KeyTestOutcome } from '../providers/provider.ts';
import type { KeyTestStatus } from './schema.ts';

export interface KeyTestResult {
  status: KeyTestStatus;
  /** For users, in the app's own words. */
  message: string;
  details: {
    /** Of the last call, to the end of its response; null when that did not arrive. */
    latencyMs: number | null;
    /** Of the last response; null when there was none, it was cut off, or it must not be shown. */
    httpStatus: number | null;
    /** True when the provider charges the owner for this test, or may do so. */
    billed: boolean;
  };
}

interface KeyTestRequest {
  userId: string;
  provider: Provider;
  /** Empty for an endpoint that was stored without a key. */
  secret: string;
  /** The endpoint encrypted with the key; null for the provider's or operator's address. */
  endpoint: string | null;
  /** Cancels the test. */
  signal?: AbortSignal;
}

/**
 * Tests a key by calling its provider. Where the user named the endpoint, or the provider does not require a key, a
 * random key is sent first. If it is accepted, the result is `unverified` and the real key is not sent.
 * The caller has counted the first call (`beginKeyTest`); the second one is counted here.
 * @throws AppError `rate_limited` (429) above 20 upstream calls per minute and user; the signal's reason.
 */
export type CallProvider = (request: KeyTestRequest) => Promise<KeyTestResult>;

export interface CallProviderDeps {
  dialer: Pick<Dialer, 'request'>;
  loopGuard: LoopGuard;
  upstreams: OperatorUpstreams;
  /** Of upstream calls, for each user. */
  limit?: RateLimit;
  /** For all calls of one test together. */
  timeoutMs?: number;
}

const MAX_CALLS_PER_MINUTE = 20;
const TIMEOUT_MS = 15_000;
/** The longest model lists have about 600 KB. */
const MAX_BODY_BYTES = 1024 * 1024;

/** Statuses of tests that ended before the provider did any paid work. */
const UNBILLED_STATUSES: ReadonlySet<KeyTestStatus> = new Set([
  'invalid',
  'forbidden',
  'no_credit',
  'rate_limited',
  'unreachable',
]);

const DIGITS = '0123456789';
const LOWER = 'abcdefghijklmnopqrstuvwxyz';
const ALPHABETS = [DIGITS, LOWER, LOWER.toUpperCase()];
const ANY = ALPHABETS.join('');
/**
 * Public prefixes that name a kind of key. They are kept, since a server may check them first. Nothing else is kept: in
 * a key of unknown format, any part may be secret.
 */
const PREFIXES = PROVIDERS.map(({ key }) => key.prefix)
  .filter((prefix) => prefix !== '')
  .sort((a, b) => b.length - a.length);
/** With fewer characters after it, an apparent prefix is treated as part of the secret. */
const MIN_SECRET_LENGTH = 12;

interface CallResult {
  status: KeyTestStatus;
  message: string;
  latencyMs: number | null;
  httpStatus: number | null;
  /** False when the HTTP status must not be shown to the user. */
  isStatusVisible: boolean;
}

interface TestCallRequest {
  provider: Provider;
  address: UpstreamAddress;
  /** Empty: no credential is sent. */
  secret: string;
  signal: AbortSignal;
}

/** Limits tests and their upstream calls; counts those of this process only. */
export function createKeyTestLimit(): RateLimit {
  return createRateLimit({
    maxUses: MAX_CALLS_PER_MINUTE,
    rejectionDetail: `At most ${MAX_CALLS_PER_MINUTE} key tests a minute. Wait, then test again.`,
  });
}

export function createCallProvider(deps: CallProviderDeps): CallProvider {
  const { dialer, loopGuard, upstreams, timeoutMs = TIMEOUT_MS, limit = createKeyTestLimit() } = deps;

  async function sendOnce({ provider, address, secret, signal }: TestCallRequest): Promise<CallResult> {
    const { keyTest } = provider;
    const startedAtMs = performance.now();
    const response = await dialer.request({
      url: new URL(address.baseUrl + keyTest.path),
      method: keyTest.method,
      headers: {
        accept: 'application/json',
        'accept-encoding': 'identity',
        ...(keyTest.body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(secret === '' ? {} : keyTest.authorize(secret)),
        ...(address.isUserSupplied ? { [LOOP_HEADER]: loopGuard.extendHeader(undefined) } : {}),
      },
      ...(keyTest.body === undefined ? {} : { body: JSON.stringify(keyTest.body) }),
      isGuarded: address.isUserSupplied,
      signal,
      firstByteTimeoutMs: timeoutMs,
      idleTimeoutMs: timeoutMs,
    });
    const result = await readCallResult(provider, response);
    if (result.httpStatus === null) return result;
    return { ...result, latencyMs: Math.round(performance.now() - startedAtMs) };
  }

  async function testKey(request: KeyTestRequest, deadline: AbortSignal): Promise<CallResult> {
    const { userId, provider, secret, endpoint } = request;
    const address = findKeyAddress(provider, endpoint, upstreams);
    if (address === undefined)
      return createResult(
        'error',
        `${provider.name} has no address here. Add the key again with its endpoint.`,
      );
    const signal = request.signal === undefined ? deadline : AbortSignal.any([request.signal, deadline]);
    const callOnce = async (sent: string): Promise<CallResult> => {
      request.signal?.throwIfAborted();
      try {
        return await sendOnce({ provider, address, secret: sent, signal });
      } catch (error) {
        request.signal?.throwIfAborted();
        return toFailureResult(provider.name, error, { deadline, isUserSupplied: address.isUserSupplied });
      }
    };
    if (secret === '') return toKeylessResult(provider.name, await callOnce(''));
    if (address.isUserSupplied || !provider.requiresKey) {
      const probe = await callOnce(createProbeKey(secret));
      if (probe.status === 'valid') {
        const message = `${provider.name} answers, but accepts any key: it accepted a random one. So your key could not be verified.`;
        return { ...probe, status: 'unverified', message };
      }
      if (!isRejection(probe)) return toProbeResult(provider.name, probe);
      await limit.consume(userId);
    }
    return callOnce(secret);
  }

  return async (request) => {
    const { status, message, ...result } = await testKey(request, AbortSignal.timeout(timeoutMs));
    const httpStatus = result.isStatusVisible ? result.httpStatus : null;
    const billed = request.provider.keyTest.billed && mayBeBilled(status, result.httpStatus);
    // Where the status is hidden, the latency would distinguish a complete response from a cut one.
    const isLatencyHidden = status === 'error' && !result.isStatusVisible;
    return {
      status,
      message,
      details: { latencyMs: isLatencyHidden ? null : result.latencyMs, httpStatus, billed },
    };
  };
}

/** Reads the complete response and classifies it. Its connection is free or closed afterwards. */
async function readCallResult(provider: Provider, response: UpstreamResponse): Promise<CallResult> {
  try {
    const { status, headers } = response;
    const body = await readBoundedBody(response.body, MAX_BODY_BYTES);
    const value = isIdentityEncoded(headers) ? parseJson(body) : undefined;
    const outcome = toKeyTestOutcome(provider, { status, body: value });
    return { ...toCallResult(provider, response, outcome), httpStatus: status };
  } catch (error) {
    // The endpoint was reached: its response had begun.
    if (!isAppError(error, 'upstream_unreachable') && !isAppError(error, 'upstream_malformed')) throw error;
    return toCallResult(provider, response, {
      status: 'error',
      message: `${provider.name} sent a response that was cut off or too long, so the key could not be verified. Test again later.`,
    });
  } finally {
    discardBody(response.body);
  }
}

/**
 * For an address that is not public, only results that a provider can give are shown. A key can point to any service
 * in the network, and neither status nor message may reveal which one it is.
 */
function toCallResult(provider: Provider, response: UpstreamResponse, outcome: KeyTestOutcome): CallResult {
  const isVisible = outcome.status !== 'error' || response.isFromPublicAddress;
  const { status, message } = isVisible ? outcome : unexpectedBodyOutcome(provider.name);
  return { ...createResult(status, message), isStatusVisible: isVisible };
}

/** @throws the error when the upstream did not cause it. */
function toFailureResult(
  name: string,
  error: unknown,
  { deadline, isUserSupplied }: { deadline: AbortSignal; isUserSupplied: boolean },
): CallResult {
  const advice = isUserSupplied
    ? 'Check the endpoint of the key, and that its server is up.'
    : 'Test again later; if that does not help, ask the operator.';
  if (deadline.aborted || isAppError(error, 'upstream_timeout')) {
    return createResult('timeout', `${name} did not answer in time. ${advice}`);
  }
  if (isAppError(error, 'upstream_unreachable')) {
    return createResult('unreachable', `${name} could not be reached. ${advice}`);
  }
  if (isAppError(error, 'endpoint_forbidden')) {
    return createResult(
      'error',
      'The host of the endpoint was not found, or is not allowed on this installation. Add the key again with another endpoint, or ask the operator.',
    );
  }
  throw error;
}

/** Results that a wrong key gets. Providers that check the key's format first answer 400. */
function isRejection({ status, httpStatus }: CallResult): boolean {
  return status === 'invalid' || status === 'forbidden' || status === 'no_credit' || httpStatus === 400;
}

/** The random key was neither accepted nor refused: the result says nothing about the real key. */
function toProbeResult(name: string, result: CallResult): CallResult {
  if (result.status !== 'rate_limited') return result;
  const message = `${name} has had too many requests just now, so your key was not sent. Wait a minute, then test again.`;
  return { ...result, message };
}

/** The result of a call without a key. */
function toKeylessResult(name: string, result: CallResult): CallResult {
  if (result.status === 'valid') {
    const message = `${name} answers without a key, as it was stored. Anyone who reaches the endpoint can use it.`;
    return { ...result, status: 'unverified', message };
  }
  if (result.httpStatus !== 401) return result;
  const message = `${name} requires a key, but none was stored. Replace this entry with the key itself.`;
  return { ...result, status: 'invalid', message };
}

/** True unless the response shows that no paid work was done. A missing or cut response does not show it. */
function mayBeBilled(status: KeyTestStatus, httpStatus: number | null): boolean {
  return !UNBILLED_STATUSES.has(status) && (httpStatus === null || httpStatus < 300);
}

function createResult(status: KeyTestStatus, message: string): CallResult {
  return { status, message, latencyMs: null, httpStatus: null, isStatusVisible: false };
}

/**
 * A random key of the same form and length: a digit for a digit, a letter for a letter, hexadecimal for
 * hexadecimal. It is never the key itself.
 * @param key not empty.
 */
export function createProbeKey(key: string): string {
  const prefix = PREFIXES.find((known) => key.startsWith(known)) ?? '';
  const kept = key.length - prefix.length >= MIN_SECRET_LENGTH ? prefix : '';
  const secretPart = key.slice(kept.length);
  const isHex = /^[0-9a-f]{16,}$/.test(secretPart);
  // Punctuation alone would stay the same.
  const isFixed = !/[A-Za-z0-9]/.test(secretPart);
  const alphabetOf = (character: string) => {
    if (isHex) return `${DIGITS}abcdef`;
    return isFixed ? ANY : ALPHABETS.find((alphabet) => alphabet.includes(character));
  };
  for (;;) {
    const probe =
      kept + Array.from(secretPart, (character) => pick(alphabetOf(character)) ?? character).join('');
    if (probe !== key) return probe;
  }
}

function pick(alphabet: string | undefined): string | undefined {
  return alphabet?.[randomInt(alphabet.length)];
}
