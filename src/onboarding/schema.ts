import { z } from 'zod';

const LAST_STEP = 3;
const STEP_ERROR = `must be a whole number from 1 to ${LAST_STEP}`;

/** The steps of the page's introduction are a key, a server, and a first request or run. */
const Step = z.number(STEP_ERROR).int(STEP_ERROR).min(1, STEP_ERROR).max(LAST_STEP, STEP_ERROR);

export const UpdateOnboarding = z.strictObject({
  current_step: Step.optional(),
  /** True when the user has finished or skipped the introduction; false opens it again. */
  completed: z.boolean().optional(),
});
export type UpdateOnboarding = z.output<typeof UpdateOnboarding>;

export const OnboardingView = z.object({
  current_step: Step,
  /** Percent of what the user's tier can do and what is done now; it does not depend on the step. */
  progress: z.number().int().min(0).max(100),
  started_at: z.iso.datetime(),
  completed_at: z.iso.datetime().nullable(),
});
export type OnboardingView = z.output<typeof OnboardingView>;
