import { findRefusalCause } from './protocol-error.ts';
import { isObject, type Provider, type KeyTestResponse, type KeyTestOutcome } from './provider.ts';

/**
 * Error codes and types that mean "no credit left", with any 4xx status.
 * Sources: OpenAI (https://developers.openai.com/api/docs/guides/error-codes), Anthropic
 * (https://platform.claude.com/docs/en/api/errors), Groq (https://console.groq.com/docs/spend-limits), Together.
 */
const NO_CREDIT_CODES: ReadonlySet<unknown> = new Set([
  'insufficient_quota',
  'credit_balance_exhausted',
  'organization_spend_limit_exceeded',
  'project_spend_limit_exceeded',
  'organization_usage_limit_exceeded',
  'billing_error',
  'enforced_spend_limit_reached',
  'blocked_api_access',
  'credit_limit',
]);

/** Converts a test response to an outcome: by the provider's own rule if it has one, else by the common rules. */
export function toKeyTestOutcome(provider: Provider, response: KeyTestResponse): KeyTestOutcome {
  return provider.keyTest.findOutcome?.(response) ?? toCommonOutcome(provider, response);
}

function toCommonOutcome({ name, keyTest }: Provider, { status, body }: KeyTestResponse): KeyTestOutcome {
  if (status >= 200 && status < 300) {
    return keyTest.isExpectedBody(body)
      ? { status: 'valid', message: `${name} accepts this key.` }
      : unexpectedBodyOutcome(name);
  }
  if (status === 402 || (status >= 400 && status < 500 && hasNoCreditCode(body))) {
    return {
      status: 'no_credit',
      message: `${name} accepts this key, but its account has no credit left or has reached its spending limit. Add credit, or raise the limit.`,
    };
  }
  if (status === 401 && findRefusalCause(body) === 'request') {
    return {
      status: 'forbidden',
      message: `${name} knows this key, but the key lacks a permission for the test call. Check the permissions, models, project and organization of the key.`,
    };
  }
  if (status === 401) {
    return {
      status: 'invalid',
      message: `${name} refuses this key. Check that it was copied completely and is not revoked, or create a new one.`,
    };
  }
  if (status === 403) {
    return {
      status: 'forbidden',
      message: `${name} does not permit the test call with this key. Check the permissions of the key, and whether the account may be used from this location.`,
    };
  }
  if (status === 429) {
    return {
      status: 'rate_limited',
      message: `${name} received too many requests with this key. Wait a minute, then test again.`,
    };
  }
  return toErrorOutcome(name, status);
}

/** The outcome of responses that show nothing about the key: `error`, neither `valid` nor `invalid`. */
function toErrorOutcome(name: string, status: number): KeyTestOutcome {
  if (status === 404) {
    return {
      status: 'error',
      message: `${name} responded to the test with status 404. If the endpoint is your own, check it: most end in /v1.`,
    };
  }
  if (status >= 500) {
    return {
      status: 'error',
      message: `${name} has an error of its own (${status}), so the test shows nothing about the key. Test again later.`,
    };
  }
  return {
    status: 'error',
    message: `${name} responded to the test with status ${status}, which shows nothing about the key. Test again later; if that does not help, ask the operator.`,
  };
}

/** The outcome of a response that the provider's API does not send. */
export function unexpectedBodyOutcome(name: string): KeyTestOutcome {
  return {
    status: 'error',
    message: `${name} sent a response that its API does not send, so the test shows nothing about the key. Check the endpoint if it is your own; most end in /v1.`,
  };
}

/** Reads the members in which OpenAI and Anthropic send codes: `error.code`, `.type`, `.details.error_code`. */
function hasNoCreditCode(body: unknown): boolean {
  const error = isObject(body) ? body['error'] : undefined;
  if (!isObject(error)) return false;
  const details = isObject(error['details']) ? error['details'] : {};
  return [error['code'], error['type'], details['error_code']].some((code) => NO_CREDIT_CODES.has(code));
}
