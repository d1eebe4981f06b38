import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { SURFACES, type StreamErrorCode } from '../support/surfaces.ts';
import { answer, fault, startUpstream, type Answer, type Upstream } from '../support/upstream.ts';
import type { ResponseWriter } from '../support/upstream/response-writer.ts';

let upstream: Upstream;
let app: TestApp;

beforeAll(async () => {
  upstream = await startUpstream();
  app = await startApp({
    env: {
      ...Object.fromEntries(
        SURFACES.map(({ provider }) => [`UPSTREAM_${provider.toUpperCase()}_URL`, upstream.url]),
      ),
      UPSTREAM_CONNECT_TIMEOUT_MS: '500',
      UPSTREAM_FIRST_BYTE_TIMEOUT_MS: '700',
      UPSTREAM_IDLE_TIMEOUT_MS: '700',
    },
  });
});
afterAll(async () => {
  await app.stop();
  await upstream.stop();
});
afterEach(() => {
  upstream.reset();
});

/** The data of each event in a stream that has JSON. */
function listData(text: string): unknown[] {
  return [...text.matchAll(/^data: (\{.*)$/gm)].map(([, data]) => JSON.parse(data ?? '') as unknown);
}

/** Whole responses, whose connections stay open for other calls. */
const WHOLE = ['HTML with 200', 'a compressed response', 'a redirect', 'JSON that is cut short'];

const lastOutcome = () => app.events('answer_passed').at(-1)?.['end'];

describe.each(SURFACES)('an upstream of $name', (surface) => {
  const streamed = { ...surface.request, stream: true };
  let session: string;
  let key: string;
  let keyId: string;
  beforeAll(async () => {
    session = await app.signIn(await createUser({ tier: 'starter' }));
    key = surface.createKey();
    keyId = await addKey(app, session, { provider: surface.provider, key });
  });

  const call = (json: object = surface.request) => app.call(surface.path, { method: 'POST', session, json });

  it.each<[string, Answer, number, StreamErrorCode]>([
    ['HTML with 200', answer.html(200), 502, 'upstream_malformed'],
    ['a compressed response', answer.gzipped(), 502, 'upstream_malformed'],
    ['a redirect', answer.redirect(307, 'http://127.0.0.1:1/v1/other'), 502, 'upstream_malformed'],
    ['an endless response', fault.endlessJson(), 502, 'upstream_malformed'],
    [
      'JSON that is cut short',
      answer.reply({ status: 200, body: '{"choices":[', headers: { 'content-type': 'application/json' } }),
      502,
      'upstream_malformed',
    ],
    ['headers of a megabyte', fault.hugeHeaders(), 502, 'upstream_unreachable'],
    ['silence', fault.silent(), 504, 'upstream_timeout'],
    ['endless headers', fault.slowHeaders(), 504, 'upstream_timeout'],
    ['headers, then silence', fault.silentAfterHeaders('application/json'), 504, 'upstream_timeout'],
    ['a reset before the headers', fault.resetBeforeHeaders(), 502, 'upstream_unreachable'],
    ['a reset in the headers', fault.resetInHeaders(), 502, 'upstream_unreachable'],
    ['a reset after the headers', fault.resetAfterHeaders('application/json'), 502, 'upstream_unreachable'],
    ['a reset in the body', fault.resetInBody(), 502, 'upstream_unreachable'],
    ['a body shorter than declared', fault.shortBody(), 502, 'upstream_unreachable'],
    ['contradicting framing headers', fault.doubleFraming(), 502, 'upstream_unreachable'],
    ['another protocol than HTTP', fault.raw('SSH-2.0-OpenSSH_9.2\r\n'), 502, 'upstream_unreachable'],
  ])('%s becomes an error in the protocol’s shape', async (name, upstreamAnswer, status, code) => {
    upstream.reply(upstreamAnswer);
    const logged = app.events('answer_passed').length;
    const response = await call();
    expect([response.status, await response.json()]).toMatchObject([status, surface.toError(code)]);
    const receipt = { status: null, end: 'failed', provider: surface.provider, key_id: keyId, attempts: 1 };
    expect(app.events('answer_passed').slice(logged)).toMatchObject([receipt]);
    expect(response.headers.get('x-ops-error-source')).toBe('ops-center');
    expect(response.headers.get('x-ops-provider')).toBe(surface.provider);
    // The provider may charge for what it received.
    expect(response.headers.get('x-should-retry')).toBe('false');
    if (!WHOLE.includes(name)) await upstream.closed(0);
  });

  it.each([500, 503, 429])(
    'with an error of its own (%i) leaves it to the client whether to try again',
    async (status) => {
      upstream.reply(answer.error(status));
      const response = await call();
      expect([response.status, response.headers.get('x-should-retry')]).toEqual([status, null]);
    },
  );

  const ENDS_IN_BODY: [string, (writer: ResponseWriter) => Promise<void> | void][] = [
    ['is reset', (writer) => writer.reset()],
    ['is shorter than declared', (writer) => writer.hangUp()],
    ['stalls', (writer) => writer.waitForClose()],
  ];
  const incompleteErrors = [413, 429, 503].flatMap((status) =>
    ENDS_IN_BODY.map(([name, end]) => [status, name, end] as const),
  );
  it.each(incompleteErrors)(
    'with the error %i keeps its status and headers when its body %s',
    async (status, _name, end) => {
      upstream.reply(async (writer) => {
        const headers = { 'content-type': 'application/json', 'content-length': '500', 'retry-after': '7' };
        writer.head(status, headers);
        await writer.write('{"error":{"message":"cut');
        await end(writer);
      });
      const response = await call();
      const message = `The provider answered ${status} with an incomplete body.`;
      expect([response.status, await response.json()]).toMatchObject([status, { error: { message } }]);
      expect(Object.fromEntries(response.headers)).toMatchObject({
        'x-ops-error-source': 'upstream',
        'retry-after': '7',
      });
      expect(response.headers.get('x-should-retry')).toBeNull();
      await upstream.closed(0);
    },
  );

  it('that reports an error with status 200 reveals no secret', async () => {
    upstream.reply(answer.reply({ status: 200, body: surface.toProviderError(`the key ${key} is odd`) }));
    const response = await call();
    expect([response.status, await response.json()]).toEqual([
      200,
      surface.toProviderError('the key *** is odd'),
    ]);
  });

  it.each([[false], [true]])(
    'with a successful response is forwarded unchanged, since a mask would confirm a guessed key (streamed: %s)',
    async (stream) => {
      // Not registered as a secret: those must not appear in any response of the run.
      const guessed = `${surface.createKey().replace(/-[^-]*$/, '')}-${randomBytes(24).toString('hex')}`;
      const otherSession = await app.signIn(await createUser({ tier: 'starter' }));
      const added = { provider: surface.provider, key: guessed };
      await app.call('/api/v1/byok/keys/add', { method: 'POST', session: otherSession, json: added });
      const body = surface.toSuccess(guessed);
      const events = `data: ${JSON.stringify(body)}\n\n${surface.end}`;
      upstream.reply(stream ? answer.steps([events]) : answer.reply({ status: 200, body }));
      const json = { ...surface.request, stream };
      const response = await app.call(surface.path, { method: 'POST', session: otherSession, json });
      expect((await upstream.received(1)).key).toBe(guessed);
      expect(await response.text()).toBe(stream ? events : JSON.stringify(body));
    },
  );

  describe('a stream', () => {
    it('is forwarded completely for any chunk boundaries', async () => {
      upstream.reply(answer.chopped(1, { text: 'Grüße \u{1F600} an alle' }));
      const chopped = await (await call(streamed)).text();
      upstream.reply(answer.completion({ text: 'Grüße \u{1F600} an alle' }));
      const whole = await (await call(streamed)).text();
      // The ids have the number of the request.
      expect(chopped.replaceAll(/(chatcmpl|msg)_?-?\d/g, '')).toBe(
        whole.replaceAll(/(chatcmpl|msg)_?-?\d/g, ''),
      );
      expect(chopped.endsWith(surface.end)).toBe(true);
    });

    it('ends at the protocol’s last event even when the upstream keeps the connection open', async () => {
      upstream.reply(fault.openAfterDone());
      expect((await (await call(streamed)).text()).endsWith(surface.end)).toBe(true);
      await upstream.closed(0);
    });

    const CUTS = ['between-frames', 'in-frame', 'in-code-point'] as const;
    const failures = CUTS.flatMap((cut) => [
      [
        `is reset ${cut}`,
        fault.resetInStream({ afterFrames: 3, cut }),
        'upstream_unreachable',
        'failed',
      ] as const,
      [`is hung up ${cut}`, fault.hangsUpInStream({ cut }), 'upstream_unreachable', 'failed'] as const,
      [
        `ends cleanly ${cut}`,
        fault.endsEarly({ afterFrames: 2, cut }),
        'upstream_incomplete',
        'incomplete',
      ] as const,
    ]);
    it.each([
      ...failures,
      ['stalls', fault.silentAfterHeaders(), 'upstream_timeout', 'failed'] as const,
      ['has an endless line', fault.endlessLine(), 'upstream_malformed', 'failed'] as const,
    ])(
      'that %s gets an error event after complete events, never a clean end',
      async (_name, upstreamAnswer, code, end) => {
        upstream.reply(upstreamAnswer);
        const response = await call(streamed);
        const text = await response.text();
        expect(response.status).toBe(200);
        expect(listData(text).at(-1)).toMatchObject(surface.toError(code));
        expect(text).not.toContain(surface.end);
        expect(lastOutcome()).toBe(end);
        if (end !== 'incomplete') await upstream.closed(0);
      },
    );

    it('ends with the error event of the upstream, with secrets redacted', async () => {
      upstream.reply(fault.errorEvent({ error: { message: `your key ${key} is odd`, type: 'own' } }));
      const text = await (await call(streamed)).text();
      expect(listData(text).at(-1)).toMatchObject({ error: { message: 'your key *** is odd', type: 'own' } });
      expect(lastOutcome()).toBe('failed');
    });

    it('applies back pressure to the upstream while the client does not read', async () => {
      upstream.reply(answer.endlessStream({ frameBytes: 65_536 }));
      const { hostname, port } = new URL(app.url);
      const client = connect(Number(port), hostname);
      const body = JSON.stringify(streamed);
      client.write(
        `POST ${surface.path} HTTP/1.1\r\nHost: localhost:${port}\r\nCookie: session=${session}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
      client.pause();
      await upstream.received(1);
      const stalledAt = await upstream.stalled(0);
      expect(stalledAt).toBeLessThan(24 * 1024 * 1024);
      client.destroy();
      await upstream.closed(0);
    });
  });
});
