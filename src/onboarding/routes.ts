import { jsonRoute, type Route } from '../http/route.ts';
import { OnboardingView, UpdateOnboarding } from './schema.ts';
import type { Onboarding } from './service.ts';

/** The introduction of the page, for the signed-in user of any tier. */
export function onboardingRoutes({ onboarding }: { onboarding: Onboarding }): Route[] {
  const path = '/api/v1/onboarding';
  const access = 'session';
  return [
    jsonRoute({
      ...{ method: 'get', path, access },
      response: OnboardingView,
      handle: ({ principal }) => onboarding.get(principal),
    }),
    jsonRoute({
      ...{ method: 'put', path, access },
      body: UpdateOnboarding,
      response: OnboardingView,
      handle: ({ principal, body }) => onboarding.update(principal, body),
    }),
  ];
}
