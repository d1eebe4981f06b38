import { z } from 'zod';

/*
 * What an answer must look like to be shown when it comes from an address that is not public. A user can point
 * a key at anything there, so only what no other service would say by chance may pass.
 */

const ResponseChoice = z
  .looseObject({ message: z.looseObject({}) })
  .or(z.looseObject({ delta: z.looseObject({}) }));

/** A chat completion. A chunk without choices carries the usage at the end of a stream, and says what it is. */
const ChatResponse = z
  .looseObject({ choices: z.array(ResponseChoice).min(1) })
  .or(z.looseObject({ choices: z.array(z.never()), object: z.literal('chat.completion.chunk') }));

/** An error, reduced to the members that the protocol has: anything else that lies beside them is dropped. */
const ProtocolError = z.object({
  error: z.object({
    message: z.string(),
    type: z.string().nullish(),
    param: z.string().nullish(),
    code: z.union([z.string(), z.number()]).nullish(),
  }),
});

/** True for a chat completion or a chunk of one. */
export function isChatResponse(value: unknown): boolean {
  return ChatResponse.safeParse(value).success;
}

/** An error of the protocol with nothing beside it; undefined when it is not shaped like one. */
export function findProtocolError(value: unknown): z.output<typeof ProtocolError> | undefined {
  return ProtocolError.safeParse(value).data;
}

/**
 * True for a body or an event that reports a failure, whatever its status: its top-level `error` says
 * something. Chunks of some providers carry `"error": null` beside what the model says.
 */
export function hasErrorMember(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'error' in value && Boolean(value.error);
}
