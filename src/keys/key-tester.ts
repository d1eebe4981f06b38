import type { Dialer, UpstreamResponse } from '../lib/net/dialer.ts';
import { isAppError } from '../lib/errors.ts';
import { LOOP_HEADER, type LoopGuard } from '../lib/net/loop-guard.ts';
import { parseJson } from '../lib/json.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import { discardBody, readBoundedBody } from '../lib/net/upstream-body.ts';
import { findKeyAddress, type OperatorUpstreams, type UpstreamAddress } from '../providers/address.ts';
import { toKeyTestOutcome, unexpectedBodyOutcome } from '../providers/key-test.ts';
import type { Provider, KeyTestOutcome } from '../providers/provider.ts';
import { createProbeKey } from './probe-key.ts';
import type { KeyTestStatus } from './schema.ts';

export interface KeyTestResult {
  status: KeyTestStatus;
  /** For people, in our words. */
  message: string;
  details: {
    /** From the last call to the end of its answer; null when that did not come. */
    latencyMs: number | null;
    /** Of the last answer; null when there was none, it broke off, or it may not be told. */
    httpStatus: number | null;
    /** True when the owner pays the provider for this test, or may do so. */
    billed: boolean;
  };
}

interface KeyTestRequest {
  userId: string;
  provider: Provider;
  /** Empty for a key that was stored without one. */
  secret: string;
  /** The endpoint sealed in the key; null for the provider's or operator's address. */
  endpoint: string | null;
  /** Ends the test early. */
  signal?: AbortSignal;
}

export interface KeyTester {
  /**
   * Tests a key by calling its provider. Where the address is the user's own, or the provider may do without a
   * key, a random key goes first: if that is accepted the answer is `unverified`, and the real one stays here.
   * @throws AppError `rate_limited` (429) above 20 upstream calls a minute and user; the signal's reason.
   */
  test(question: KeyTestRequest): Promise<KeyTestResult>;
}

export interface KeyTesterDeps {
  dialer: Pick<Dialer, 'request'>;
  loopGuard: LoopGuard;
  upstreams: OperatorUpstreams;
  /** For all calls of one test together. */
  timeoutMs?: number;
}

const MAX_CALLS_PER_MINUTE = 20;
const TIMEOUT_MS = 15_000;
/** The longest lists of models have some 600 KB. */
const MAX_BODY_BYTES = 1024 * 1024;

/** Statuses of tests that ended before the provider did any paid work. */
const UNBILLED_STATUSES: ReadonlySet<KeyTestStatus> = new Set([
  'invalid',
  'forbidden',
  'no_credit',
  'rate_limited',
  'unreachable',
]);

/** What one call found. */
interface CallResult {
  status: KeyTestStatus;
  message: string;
  latencyMs: number | null;
  httpStatus: number | null;
  /** False when the HTTP status is for us alone. */
  isStatusVisible: boolean;
}

interface TestCallRequest {
  provider: Provider;
  address: UpstreamAddress;
  /** Empty: nothing is sent in its place. */
  secret: string;
  signal: AbortSignal;
}

/** Builds the tester. The limit of calls is counted by this process alone. */
export function createKeyTester(deps: KeyTesterDeps): KeyTester {
  const { dialer, loopGuard: hops, upstreams, timeoutMs = TIMEOUT_MS } = deps;
  const limit = createRateLimit({
    points: MAX_CALLS_PER_MINUTE,
    rejectionDetail: `At most ${MAX_CALLS_PER_MINUTE} tests of keys a minute. Wait, then test again.`,
  });

  async function callProvider({ provider, address, secret, signal }: TestCallRequest): Promise<CallResult> {
    const { keyTest } = provider;
    const startedAtMs = performance.now();
    const answer = await dialer.request({
      url: new URL(address.baseUrl + keyTest.path),
      method: keyTest.method,
      headers: {
        accept: 'application/json',
        'accept-encoding': 'identity',
        ...(keyTest.body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(secret === '' ? {} : keyTest.authorize(secret)),
        ...(address.isUserSupplied ? { [LOOP_HEADER]: hops.extendHeader(undefined) } : {}),
      },
      ...(keyTest.body === undefined ? {} : { body: JSON.stringify(keyTest.body) }),
      guarded: address.isUserSupplied,
      signal,
      firstByteTimeoutMs: timeoutMs,
      idleTimeoutMs: timeoutMs,
    });
    const found = await readCallResult(provider, answer);
    if (found.httpStatus === null) return found;
    return { ...found, latencyMs: Math.round(performance.now() - startedAtMs) };
  }

  async function testKey(question: KeyTestRequest, deadline: AbortSignal): Promise<CallResult> {
    const { userId, provider, secret, endpoint } = question;
    const address = findKeyAddress(provider, endpoint, upstreams);
    if (address === undefined) return createResult('error', noAddressMessage(provider.name));
    const signal = question.signal === undefined ? deadline : AbortSignal.any([question.signal, deadline]);
    const callOnce = async (sent: string): Promise<CallResult> => {
      question.signal?.throwIfAborted();
      await limit.consume(userId);
      try {
        return await callProvider({ provider, address, secret: sent, signal });
      } catch (error) {
        question.signal?.throwIfAborted();
        return toFailureResult(provider.name, error, deadline);
      }
    };
    if (secret === '') return toKeylessResult(provider.name, await callOnce(''));
    if (address.isUserSupplied || !provider.requiresKey) {
      const probe = await callOnce(createProbeKey(secret));
      if (probe.status === 'valid')
        return { ...probe, status: 'unverified', message: anyKeyMessage(provider.name) };
      if (!isRejection(probe)) return toProbeResult(provider.name, probe);
    }
    return callOnce(secret);
  }

  return {
    async test(question) {
      const { status, message, ...found } = await testKey(question, AbortSignal.timeout(timeoutMs));
      const httpStatus = found.isStatusVisible ? found.httpStatus : null;
      const billed = question.provider.keyTest.billed && mayBeBilled(status, found.httpStatus);
      // Where the status is not told, the time would tell a whole answer from a cut one.
      const isLatencyHidden = status === 'error' && !found.isStatusVisible;
      return {
        status,
        message,
        details: { latencyMs: isLatencyHidden ? null : found.latencyMs, httpStatus, billed },
      };
    },
  };
}

/** Reads an answer whole and judges it; its connection is free or closed afterwards. */
async function readCallResult(provider: Provider, answer: UpstreamResponse): Promise<CallResult> {
  try {
    const { status, headers } = answer;
    const text = (await readBoundedBody(answer.body, MAX_BODY_BYTES)).toString('utf8');
    const encoding = headers['content-encoding'];
    const isPlain = encoding === undefined || encoding === 'identity';
    const reading = toKeyTestOutcome(provider, { status, body: isPlain ? parseJson(text) : undefined });
    return { ...toCallResult(provider, answer, reading), httpStatus: status };
  } catch (error) {
    // It was reached, since its answer had begun.
    if (!isAppError(error, 'upstream_unreachable') && !isAppError(error, 'upstream_malformed')) throw error;
    return toCallResult(provider, answer, {
      status: 'error',
      message: incompleteResponseMessage(provider.name),
    });
  } finally {
    discardBody(answer.body);
  }
}

/**
 * Of an address that is not public only what a provider would say is told: a key can be pointed at anything
 * that stands there, and neither the status nor the words may tell what that is.
 */
function toCallResult(provider: Provider, answer: UpstreamResponse, reading: KeyTestOutcome): CallResult {
  const isVisible = reading.status !== 'error' || answer.fromPublicAddress;
  const { status, message } = isVisible ? reading : unexpectedBodyOutcome(provider.name);
  return { ...createResult(status, message), isStatusVisible: isVisible };
}

/** What a call that failed says. @throws what is no fault of the upstream. */
function toFailureResult(name: string, error: unknown, deadline: AbortSignal): CallResult {
  if (deadline.aborted || isAppError(error, 'upstream_timeout')) {
    return createResult(
      'timeout',
      `${name} did not answer in time. Test again later, or check the endpoint if it is yours.`,
    );
  }
  if (isAppError(error, 'upstream_unreachable')) {
    return createResult(
      'unreachable',
      `${name} could not be reached. Check that it is up, and the endpoint if it is yours.`,
    );
  }
  if (isAppError(error, 'endpoint_forbidden')) {
    return createResult(
      'error',
      'The endpoint of this key may not be reached from here any more. Add the key again with another endpoint, or ask the operator.',
    );
  }
  throw error;
}

/** Answers of the kind that a wrong key gets; with 400, too, from those who read its form first. */
function isRejection({ status, httpStatus }: CallResult): boolean {
  return status === 'invalid' || status === 'forbidden' || status === 'no_credit' || httpStatus === 400;
}

/** An answer to the random key that neither takes nor refuses it: it says nothing of the real one. */
function toProbeResult(name: string, found: CallResult): CallResult {
  if (found.status !== 'rate_limited') return found;
  const message = `${name} has had too many requests just now, so your key was not sent. Wait a minute, then test again.`;
  return { ...found, message };
}

/** What an endpoint says that is asked without a key. */
function toKeylessResult(name: string, found: CallResult): CallResult {
  if (found.status === 'valid') return { ...found, status: 'unverified', message: keylessMessage(name) };
  return found.status === 'invalid' ? { ...found, message: missingKeyMessage(name) } : found;
}

/** True unless the answer shows that no work was done; one that did not come, or not whole, shows nothing. */
function mayBeBilled(status: KeyTestStatus, httpStatus: number | null): boolean {
  return !UNBILLED_STATUSES.has(status) && (httpStatus === null || httpStatus < 300);
}

function createResult(status: KeyTestStatus, message: string): CallResult {
  return { status, message, latencyMs: null, httpStatus: null, isStatusVisible: false };
}

function anyKeyMessage(name: string): string {
  return `${name} answers, but accepts any key: a random one was tried. So this says nothing of yours.`;
}

function keylessMessage(name: string): string {
  return `${name} answers without a key, as this one was stored. Whoever reaches the endpoint can use it.`;
}

function missingKeyMessage(name: string): string {
  return `${name} wants a key, and this one was stored without. Replace it with the key itself.`;
}

function incompleteResponseMessage(name: string): string {
  return `${name} sent an answer that broke off or is too long, so the key is not proven. Test again later.`;
}

function noAddressMessage(name: string): string {
  return `${name} has no address here. Add the key again with its endpoint.`;
}
