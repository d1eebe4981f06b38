import { useQuery } from '@tanstack/react-query';
import { Navigate } from '@tanstack/react-router';
import type { ReactNode } from 'react';
import { onboardingQuery } from '../api/onboarding.ts';
import { Loading } from '../components/loading.tsx';
import { NAVIGATION } from './navigation.ts';

/** Leads to the first steps until they are finished or skipped, then to the first page of the menu. */
export function Start(): ReactNode {
  const { data, isPending } = useQuery(onboardingQuery);
  if (isPending) return <Loading />;
  // Where the steps cannot be read, nothing else depends on them.
  const isIntroduced = data?.completed_at !== null;
  return <Navigate to={isIntroduced ? NAVIGATION[0].to : '/welcome'} replace />;
}
