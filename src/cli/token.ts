import { z } from 'zod';
import { StartError } from '../lib/errors.ts';
import { sendAsUser, type DemoSession } from './session.ts';

/** A forgotten token of the trial ends by itself. */
const LIFETIME_MS = 7 * 24 * 60 * 60_000;
const SCOPES = ['chat', 'keys:read'];
const TokenResponse = z.object({ token: z.string() });
const ErrorResponse = z.object({ detail: z.string() });

/**
 * Creates a personal token through the API, as the signed-in demo user.
 * @returns the token, which is shown nowhere else.
 * @throws StartError with the API's reason, e.g. when the user has too many tokens.
 */
export async function createDemoToken(demoSession: DemoSession): Promise<string> {
  const response = await sendAsUser(demoSession, 'POST', '/api/v1/tokens', {
    name: 'npm run ops -- token',
    scopes: SCOPES,
    expires_at: new Date(Date.now() + LIFETIME_MS).toISOString(),
  });
  const body: unknown = await response.json();
  if (response.ok) return TokenResponse.parse(body).token;
  const { detail } = ErrorResponse.parse(body);
  throw new StartError(`The token was not created. ${detail}`);
}
