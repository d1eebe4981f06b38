import type { Dialer, UpstreamAnswer } from '../lib/dialer.ts';
import { isAppError } from '../lib/errors.ts';
import { HOP_HEADER, type Hops } from '../lib/hop.ts';
import { parseJson } from '../lib/json-bounds.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import { discard, readWhole } from '../lib/upstream-body.ts';
import { keyAddress, type OperatorUpstreams, type UpstreamAddress } from '../providers/address.ts';
import { readAnswer, unlikeTheApi } from '../providers/key-test.ts';
import type { Provider, TestReading } from '../providers/provider.ts';
import { createProbeKey } from './probe-key.ts';
import type { TestStatus } from './schema.ts';

export interface KeyTestResult {
  status: TestStatus;
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

interface Question {
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
  test(question: Question): Promise<KeyTestResult>;
}

export interface KeyTesterDeps {
  dialer: Pick<Dialer, 'request'>;
  hops: Hops;
  upstreams: OperatorUpstreams;
  /** For all calls of one test together. */
  timeoutMs?: number;
}

const CALLS_A_MINUTE = 20;
const TIMEOUT_MS = 15_000;
/** The longest lists of models have some 600 KB. */
const MAX_BODY_BYTES = 1024 * 1024;

/** Statuses of tests that ended before the provider did any paid work. */
const UNPAID: ReadonlySet<TestStatus> = new Set([
  'invalid',
  'forbidden',
  'no_credit',
  'rate_limited',
  'unreachable',
]);

/** What one call found. */
interface Finding {
  status: TestStatus;
  message: string;
  latencyMs: number | null;
  httpStatus: number | null;
  /** False when the HTTP status is for us alone. */
  isStatusTold: boolean;
}

interface Call {
  provider: Provider;
  address: UpstreamAddress;
  /** Empty: nothing is sent in its place. */
  secret: string;
  signal: AbortSignal;
}

/** Builds the tester. The limit of calls is counted by this process alone. */
export function createKeyTester(deps: KeyTesterDeps): KeyTester {
  const { dialer, hops, upstreams, timeoutMs = TIMEOUT_MS } = deps;
  const limit = createRateLimit({
    points: CALLS_A_MINUTE,
    refusal: `At most ${CALLS_A_MINUTE} tests of keys a minute. Wait, then test again.`,
  });

  async function call({ provider, address, secret, signal }: Call): Promise<Finding> {
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
        ...(address.isUsers ? { [HOP_HEADER]: hops.extend(undefined) } : {}),
      },
      ...(keyTest.body === undefined ? {} : { body: JSON.stringify(keyTest.body) }),
      guarded: address.isUsers,
      signal,
      firstByteTimeoutMs: timeoutMs,
      idleTimeoutMs: timeoutMs,
    });
    const found = await readFinding(provider, answer);
    if (found.httpStatus === null) return found;
    return { ...found, latencyMs: Math.round(performance.now() - startedAtMs) };
  }

  async function run(question: Question, deadline: AbortSignal): Promise<Finding> {
    const { userId, provider, secret, endpoint } = question;
    const address = keyAddress(provider, endpoint, upstreams);
    if (address === undefined) return finding('error', noAddress(provider.name));
    const signal = question.signal === undefined ? deadline : AbortSignal.any([question.signal, deadline]);
    const ask = async (sent: string): Promise<Finding> => {
      question.signal?.throwIfAborted();
      await limit.take(userId);
      try {
        return await call({ provider, address, secret: sent, signal });
      } catch (error) {
        question.signal?.throwIfAborted();
        return readFailure(provider.name, error, deadline);
      }
    };
    if (secret === '') return readWithoutKey(provider.name, await ask(''));
    if (address.isUsers || !provider.requiresKey) {
      const probe = await ask(createProbeKey(secret));
      if (probe.status === 'valid') return { ...probe, status: 'unverified', message: anyKey(provider.name) };
      if (!isRefusal(probe)) return readProbe(provider.name, probe);
    }
    return ask(secret);
  }

  return {
    async test(question) {
      const { status, message, ...found } = await run(question, AbortSignal.timeout(timeoutMs));
      const httpStatus = found.isStatusTold ? found.httpStatus : null;
      const billed = question.provider.keyTest.billed && mayBePaid(status, found.httpStatus);
      // Where the status is not told, the time would tell a whole answer from a cut one.
      const isCoarse = status === 'error' && !found.isStatusTold;
      return {
        status,
        message,
        details: { latencyMs: isCoarse ? null : found.latencyMs, httpStatus, billed },
      };
    },
  };
}

/** Reads an answer whole and judges it; its connection is free or closed afterwards. */
async function readFinding(provider: Provider, answer: UpstreamAnswer): Promise<Finding> {
  try {
    const { status, headers } = answer;
    const text = (await readWhole(answer.body, MAX_BODY_BYTES)).toString('utf8');
    const encoding = headers['content-encoding'];
    const isPlain = encoding === undefined || encoding === 'identity';
    const reading = readAnswer(provider, { status, body: isPlain ? parseJson(text) : undefined });
    return { ...tell(provider, answer, reading), httpStatus: status };
  } catch (error) {
    // It was reached, since its answer had begun.
    if (!isAppError(error, 'upstream_unreachable') && !isAppError(error, 'upstream_malformed')) throw error;
    return tell(provider, answer, { status: 'error', message: cutAnswer(provider.name) });
  } finally {
    discard(answer.body);
  }
}

/**
 * Of an address that is not public only what a provider would say is told: a key can be pointed at anything
 * that stands there, and neither the status nor the words may tell what that is.
 */
function tell(provider: Provider, answer: UpstreamAnswer, reading: TestReading): Finding {
  const isTold = reading.status !== 'error' || answer.fromPublicAddress;
  const { status, message } = isTold ? reading : unlikeTheApi(provider.name);
  return { ...finding(status, message), isStatusTold: isTold };
}

/** What a call that failed says. @throws what is no fault of the upstream. */
function readFailure(name: string, error: unknown, deadline: AbortSignal): Finding {
  if (deadline.aborted || isAppError(error, 'upstream_timeout')) {
    return finding(
      'timeout',
      `${name} did not answer in time. Test again later, or check the endpoint if it is yours.`,
    );
  }
  if (isAppError(error, 'upstream_unreachable')) {
    return finding(
      'unreachable',
      `${name} could not be reached. Check that it is up, and the endpoint if it is yours.`,
    );
  }
  if (isAppError(error, 'endpoint_forbidden')) {
    return finding(
      'error',
      'The endpoint of this key may not be reached from here any more. Add the key again with another endpoint, or ask the operator.',
    );
  }
  throw error;
}

/** Answers of the kind that a wrong key gets; with 400, too, from those who read its form first. */
function isRefusal({ status, httpStatus }: Finding): boolean {
  return status === 'invalid' || status === 'forbidden' || status === 'no_credit' || httpStatus === 400;
}

/** An answer to the random key that neither takes nor refuses it: it says nothing of the real one. */
function readProbe(name: string, found: Finding): Finding {
  if (found.status !== 'rate_limited') return found;
  const message = `${name} has had too many requests just now, so your key was not sent. Wait a minute, then test again.`;
  return { ...found, message };
}

/** What an endpoint says that is asked without a key. */
function readWithoutKey(name: string, found: Finding): Finding {
  if (found.status === 'valid') return { ...found, status: 'unverified', message: withoutKey(name) };
  return found.status === 'invalid' ? { ...found, message: missingKey(name) } : found;
}

/** True unless the answer shows that no work was done; one that did not come, or not whole, shows nothing. */
function mayBePaid(status: TestStatus, httpStatus: number | null): boolean {
  return !UNPAID.has(status) && (httpStatus === null || httpStatus < 300);
}

function finding(status: TestStatus, message: string): Finding {
  return { status, message, latencyMs: null, httpStatus: null, isStatusTold: false };
}

function anyKey(name: string): string {
  return `${name} answers, but accepts any key: a random one was tried. So this says nothing of yours.`;
}

function withoutKey(name: string): string {
  return `${name} answers without a key, as this one was stored. Whoever reaches the endpoint can use it.`;
}

function missingKey(name: string): string {
  return `${name} wants a key, and this one was stored without. Replace it with the key itself.`;
}

function cutAnswer(name: string): string {
  return `${name} sent an answer that broke off or is too long, so the key is not proven. Test again later.`;
}

function noAddress(name: string): string {
  return `${name} has no address here. Add the key again with its endpoint.`;
}
