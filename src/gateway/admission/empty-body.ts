import type { RequestBody } from './request-body.ts';

const NOTHING = Buffer.alloc(0);

/** The body of a request that has none, since its path names what it is about. */
export function createEmptyBody(facts: Pick<RequestBody, 'isStreaming' | 'createProgress'>): RequestBody {
  const body: RequestBody = {
    ...facts,
    ...{ model: undefined, previousResponseId: undefined, isResponseStored: false },
    fieldNames: [],
    memberCount: 0,
    takeValue: () => ({}),
    withModel: () => NOTHING,
    edit: () => false,
    withoutFields: () => body,
    withoutStoring: () => body,
    byteLength: () => 0,
    release: () => undefined,
  };
  return body;
}
