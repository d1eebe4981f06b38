import { isObject, type Provider, type KeyTestResponse, type KeyTestOutcome } from './provider.ts';

/**
 * Codes and types by which providers tell that there is no money left, whatever status they put on it:
 * OpenAI (https://developers.openai.com/api/docs/guides/error-codes), Anthropic
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

/** What an answer to a provider's test says of the key: the provider's own reading, then the common one. */
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
  if (status === 401) {
    return {
      status: 'invalid',
      message: `${name} refuses this key. Check that it was copied whole and is not revoked, or make a new one.`,
    };
  }
  if (status === 403) {
    return {
      status: 'forbidden',
      message: `${name} does not allow this key what the test asks for. Check its permissions, and whether the account may be used from here.`,
    };
  }
  if (status === 429) {
    return {
      status: 'rate_limited',
      message: `${name} has had too many requests of this key just now. Wait a minute, then test again.`,
    };
  }
  return toErrorOutcome(name, status);
}

/** Answers that say nothing of the key: never taken for a good one, nor for a bad one. */
function toErrorOutcome(name: string, status: number): KeyTestOutcome {
  if (status === 404) {
    return {
      status: 'error',
      message: `${name} does not know the address that the test asked. If the endpoint is yours, check it: most end in /v1.`,
    };
  }
  if (status >= 500) {
    return {
      status: 'error',
      message: `${name} has trouble of its own (${status}), which says nothing of the key. Test again later.`,
    };
  }
  return {
    status: 'error',
    message: `${name} answered the test with ${status}, which says nothing of the key. Test again later; if that does not help, ask the operator.`,
  };
}

/** The reading of an answer that is not what the provider's API sends. */
export function unexpectedBodyOutcome(name: string): KeyTestOutcome {
  return {
    status: 'error',
    message: `${name} answered with something that its API does not send, so the key is not proven. Check the endpoint if it is yours; most end in /v1.`,
  };
}

/** Looks where the protocols of OpenAI and Anthropic put codes: `error.code`, `.type`, `.details.error_code`. */
function hasNoCreditCode(body: unknown): boolean {
  const error = isObject(body) ? body['error'] : undefined;
  if (!isObject(error)) return false;
  const details = isObject(error['details']) ? error['details'] : {};
  return [error['code'], error['type'], details['error_code']].some((code) => NO_CREDIT_CODES.has(code));
}
