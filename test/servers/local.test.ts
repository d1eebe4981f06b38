import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { startApp, type TestApp } from '../support/app.ts';
import { describeOn } from '../support/hosts.ts';
import { createServerClient, type ServerClient } from '../support/servers.ts';
import { adminClient } from '../support/stack.ts';

const LOCAL = { name: 'Here', server_type: 'local' as const, connection_config: {} };

async function features({ session }: ServerClient, app: TestApp): Promise<unknown> {
  const me = (await (await app.call('/api/v1/me', { session })).json()) as { features: unknown };
  return me.features;
}

/** Gives a user the role inside a composite role, as administrators of a realm do. @returns removes it. */
async function makeOperator(userId: string): Promise<() => Promise<void>> {
  const admin = await adminClient();
  const name = `role-${randomBytes(6).toString('hex')}`;
  await admin.roles.create({ name });
  const [outer, inner] = [
    await admin.roles.findOneByName({ name }),
    await admin.roles.findOneByName({ name: 'ops-operator' }),
  ];
  const roles = [outer, inner].map((role) => ({ id: role?.id ?? '', name: role?.name ?? '' }));
  await admin.roles.createComposite({ roleId: roles[0]?.id ?? '' }, roles.slice(1));
  const mapping = { id: userId, roles: roles.slice(0, 1) };
  await admin.users.addRealmRoleMappings(mapping);
  return () => admin.users.delRealmRoleMappings(mapping);
}

describe('with local execution off', () => {
  it('a local server cannot be added or tested, not even by an operator', async () => {
    await using app = await startApp();
    const ada = await createServerClient(app);
    await makeOperator(ada.user.id);
    expect(await features(ada, app)).toEqual({ byok: true, execution_servers: true, local_execution: false });
    for (const [path, json] of [
      ['', LOCAL],
      ['/test', { server_type: 'local', connection_config: {} }],
    ] as const)
      expect(await ada.expectRefusal('POST', path, json)).toMatchObject({
        status: 400,
        code: 'validation_failed',
        errors: [{ path: 'server_type', message: expect.stringMatching(/LOCAL_EXECUTION/) }],
      });
  });
});

describeOn('local', 'with local execution on', () => {
  let app: TestApp;

  beforeAll(async () => {
    app = await startApp({ env: { LOCAL_EXECUTION: 'true' } });
  });
  afterAll(async () => {
    await app.stop();
  });

  it('a user without the role gets an error that names the role', async () => {
    const ada = await createServerClient(app);
    expect(await features(ada, app)).toMatchObject({ execution_servers: true, local_execution: false });
    expect(await ada.expectRefusal('POST', '', LOCAL)).toMatchObject({
      ...{ status: 403, code: 'scope_required', required_role: 'ops-operator' },
      detail: expect.stringMatching(/needs the role ops-operator/),
    });
  });

  it('an operator below the Starter tier cannot use it', async () => {
    const ada = await createServerClient(app, 'free');
    await makeOperator(ada.user.id);
    expect(await features(ada, app)).toEqual({
      byok: false,
      execution_servers: false,
      local_execution: false,
    });
    expect(await ada.expectRefusal('POST', '', LOCAL)).toMatchObject({ status: 403, code: 'tier_required' });
  });

  it('an operator can use it; after the loss of the role the server can only be read and deleted', async () => {
    const ada = await createServerClient(app);
    const takeAway = await makeOperator(ada.user.id);
    expect(await features(ada, app)).toMatchObject({ local_execution: true });
    const { id } = await ada.add(LOCAL);
    expect(await ada.get(id)).toMatchObject({ server_type: 'local', host_key: null, is_default: true });
    const tested = await ada.test(id);
    expect(tested).toMatchObject({ status: 'online', details: { host_key: null } });
    await takeAway();
    for (const [method, path, json] of [
      ['POST', `/${id}/test`],
      ['PUT', `/${id}`, { name: 'x' }],
      ['POST', '', LOCAL],
    ] as const)
      expect(await ada.expectRefusal(method, path, json)).toMatchObject({
        status: 403,
        code: 'scope_required',
      });
    expect(await ada.get(id)).toMatchObject({ name: 'Here' });
    await ada.remove(id);
  });
});
