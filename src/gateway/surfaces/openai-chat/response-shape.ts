import { z } from 'zod';

/*
 * The shape that a response from a private address must have to be sent to the client. A user can point a key at any
 * service there, so the shape must not match another service's response by chance.
 */

const ResponseChoice = z
  .looseObject({ message: z.looseObject({}) })
  .or(z.looseObject({ delta: z.looseObject({}) }));

/** A chat completion. A chunk without choices reports the usage at the end of a stream and must name its `object`. */
const ChatResponse = z
  .looseObject({ choices: z.array(ResponseChoice).min(1) })
  .or(z.looseObject({ choices: z.array(z.never()), object: z.literal('chat.completion.chunk') }));

/** An error, reduced to the members of the protocol. All other members are dropped. */
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

/** The error with the members of the protocol only; undefined when the value has another shape. */
export function findProtocolError(value: unknown): z.output<typeof ProtocolError> | undefined {
  return ProtocolError.safeParse(value).data;
}

/**
 * True for a body or event with a truthy top-level `error`, regardless of its status. Some providers send
 * `"error": null` in every chunk.
 */
export function hasErrorMember(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'error' in value && Boolean(value.error);
}
