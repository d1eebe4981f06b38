import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { startApp, type TestApp } from '../support/app.ts';
import { evidence } from '../support/evidence.ts';
import { makeOperator } from '../support/operator.ts';
import { createUser } from '../support/stack.ts';

const SYSTEM_KEY = 'sk-or-the-system-default-of-about';
let app: TestApp;

beforeAll(async () => {
  evidence.registerSecret('system default key', SYSTEM_KEY);
  app = await startApp({
    env: {
      AUDIT_DAYS: '100',
      USAGE_DAYS: '90',
      RUN_HISTORY_DAYS: '10',
      DEFAULT_LLM_PROVIDER: 'openrouter',
      DEFAULT_LLM_API_KEY: SYSTEM_KEY,
      DEFAULT_LLM_MODEL: 'vendor/model',
      DEFAULT_LLM_MODELS: 'vendor/model,vendor/other',
    },
  });
});
afterAll(() => app.stop());

const read = async (path: string, session: string) => {
  const response = await app.call(path, { session });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
};

describe('GET /api/v1/about', () => {
  it('describes the installation to every signed-in user', async () => {
    const session = await app.signIn(await createUser({ tier: 'free' }));
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
    const { url, realm } = app.config.keycloak;
    expect(await read('/api/v1/about', session)).toEqual({
      status: 200,
      body: {
        ...{ version, mode: 'local', public_url: app.url, realm },
        account_url: `${url}/realms/${realm}/account`,
        local_execution: false,
        retention: { audit_days: 100, usage_days: 90, run_history_days: 10 },
      },
    });
  });
});

describe('GET /api/v1/operator', () => {
  it('shows the findings of doctor and the system default to users with the role alone, at once', async () => {
    const user = await createUser({ tier: 'free' });
    const session = await app.signIn(user);
    const refused = { status: 403, body: { code: 'scope_required', required_role: 'ops-operator' } };
    expect(await read('/api/v1/operator', session)).toMatchObject(refused);
    const takeAway = await makeOperator(user.id);
    const { status, body } = await read('/api/v1/operator', session);
    expect([status, body]).toMatchObject([
      200,
      {
        system_default: {
          provider: 'openrouter',
          model: 'vendor/model',
          models: ['vendor/model', 'vendor/other'],
        },
        findings: expect.arrayContaining([
          {
            level: 'ok',
            check: expect.stringContaining('admin events of realm'),
            detail: 'are saved',
            fix: '',
          },
        ]),
      },
    ]);
    expect(JSON.stringify(body)).not.toContain(SYSTEM_KEY);
    await takeAway();
    expect(await read('/api/v1/operator', session)).toMatchObject(refused);
  });
});
