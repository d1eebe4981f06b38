import { queryOptions, useMutation, useQueryClient } from '@tanstack/react-query';
import type { z } from 'zod';
import { OnboardingView, type UpdateOnboarding } from '../../onboarding/schema.ts';
import { callApi } from './call.ts';

const PATH = '/api/v1/onboarding';

/** Where the user is in the first steps, on any device. */
export const onboardingQuery = queryOptions({
  queryKey: ['onboarding'],
  queryFn: ({ signal }) => callApi(PATH, OnboardingView, { signal }),
  // Progress depends on keys, servers and runs, which other pages and programs change.
  staleTime: 0,
});

export function useUpdateOnboarding() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: z.input<typeof UpdateOnboarding>) =>
      callApi(PATH, OnboardingView, { method: 'PUT', body }),
    onSuccess: (view) => {
      client.setQueryData(onboardingQuery.queryKey, view);
    },
  });
}
