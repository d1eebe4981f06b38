import type { AppError } from '../lib/errors.ts';
import type { RefusalCause } from '../providers/protocol-error.ts';
import type { SurfaceName } from '../providers/provider.ts';
import type { TokenUsage } from '../usage/service.ts';

/**
 * The contract of a surface: what the gateway needs to know of the protocol in which a client calls it. A surface is
 * one folder in `surfaces/` (`models/` only lists models), does no I/O and imports no other surface. A new one also needs
 * its route in `routes.ts` and its path in `Provider.surfaces`.
 */
export interface Surface {
  /** Selects the path of the outgoing call in `Provider.surfaces`. */
  name: SurfaceName;
  /** Appended to that path, for a further call of the same protocol. */
  pathSuffix?: string;
  /** In error messages: "the ... protocol". */
  protocolName: string;
  /** Request headers that the protocol requires. A header that the client sent replaces the default. */
  defaultHeaders?: Readonly<Record<string, string>>;
  /**
   * Fields that the gateway reads. If one occurred twice, the gateway and the upstream could read different values.
   * Lax parsers also accept other spellings of a name. So each may occur once, spelled as here.
   */
  interpretedFields: readonly string[];
  /** Fields that a shared payer accepts: they shape this response only and use no stored objects or hosted tools. */
  sharedPayerFields: ReadonlySet<string>;
  /**
   * Fields that a shared payer leaves out, since they can neither cost nor steer. The function returns true if that
   * holds for the value; other values are refused.
   */
  droppedFields: ReadonlyMap<string, (value: unknown) => boolean>;
  /**
   * Visits all values of a body.
   * @returns the number of members of all objects in it.
   * @throws AppError `field_not_allowed`, `validation_failed` for values that a shared payer does not accept.
   */
  checkSharedPayerValues(body: Readonly<Record<string, unknown>>): number;
  /** True where the protocol has no streams: the field `stream` means nothing, and a stream is no valid response. */
  hasNoStreams?: true;
  /** Where providers keep responses, to which later requests refer by id. */
  storedResponses?: StoredResponseRules;
  /**
   * `data` of the event that ends a stream, and that is added where it alone is missing. Null where the last event is a
   * response of the protocol, which `StreamProgress` recognizes.
   */
  endOfStream: string | null;
  /** True where the field `event` of each event has the `type` of its data. SDKs skip other events. */
  hasEventTypes: boolean;
  /** Sent in a stream after each time of silence: a comment, or an event without content. */
  keepAlive: string;
  /**
   * Replaces large values in the bytes of a whole response by small ones of the same kind, in steps between which other
   * requests proceed. The result is parsed and checked in place of the response, which is sent as it is.
   */
  withoutVectors?(bytes: Buffer): Generator<void, Buffer>;
  /**
   * True for a response of the protocol, or an event of one, in any variant that servers send. It can report an error
   * as well. A private address must match the shape more closely, since any internal service can be there.
   */
  isResponse(value: unknown, isPublic: boolean): boolean;
  /** True for a body or event that reports an error, regardless of its status. */
  hasError(value: unknown): boolean;
  /**
   * The error with the members of the protocol only, its texts shortened; undefined when the value has no shape of an
   * error that servers of the protocol send. Secrets are redacted before, since shortening can cut one.
   */
  findError(value: unknown): object | undefined;
  /** What an error with status 401 says of its cause; undefined when it does not explain itself. */
  findRefusalCause(value: unknown): RefusalCause | undefined;
  /**
   * Reads from the body of a request what its answer consists of. The body is not retained.
   * @returns function that follows one stream of the answer.
   */
  prepareProgress(body: Readonly<Record<string, unknown>>): () => StreamProgress;
  /** How the protocol reports tokens: `usage.ts` of the surface's folder. */
  usage: UsageProtocol;
  /** The body of an upstream's error that has none that may be shown. */
  toUpstreamError(message: string): object;
  /** An error of ours in the shape of the protocol. */
  toError(error: AppError, requestId: string): object;
  /**
   * The error event that ends a stream which has already begun.
   * @param body of an error response. A shape that the protocol's SDKs do not read as an error becomes one that they do.
   */
  toErrorEvent(body: unknown): string;
}

/** How requests and responses of a protocol refer to responses that the provider has stored. */
export interface StoredResponseRules {
  /**
   * The id of the stored response that a request continues.
   * @throws AppError `validation_failed` when it is not a string.
   */
  findPrevious(body: Readonly<Record<string, unknown>>): string | undefined;
  /**
   * True unless the request says that its response is not to be stored. A shared payer always says so with `store: false`:
   * all its users would share the stored responses.
   */
  isStored(body: Readonly<Record<string, unknown>>): boolean;
  /** The id of a response, or of the one that an event is about. */
  findId(value: unknown): string | undefined;
}

/** What the events of one stream say about its completeness. The end of the connection says nothing. */
export interface StreamProgress {
  /** @param value a successful response of the protocol. */
  add(value: unknown): void;
  /** True when the events contain the whole answer, so that only the protocol's last event can be missing. */
  isFinished(): boolean;
}

export interface UsageProtocol {
  createReader(): UsageReader;
  /** True for an event of a stream with text, reasoning or data of a tool: the first one ends the time to the first token. */
  hasOutput(event: unknown): boolean;
  /** How a stream is asked to report its usage. Undefined where each stream reports it. */
  streamRequest?: StreamUsageRequest;
}

/** Reads the usage of one answer. */
export interface UsageReader {
  /** @param value a complete response or an event of a stream: in both cases a successful one of the protocol. */
  add(value: unknown): void;
  /** The usage as reported so far. A stream that was cut has reported a part of it, or nothing. */
  read(): TokenUsage;
}

export interface StreamUsageRequest {
  /**
   * @param body JSON object that asks for a stream.
   * @returns the body that also asks for the usage; the same bytes where it does already, or asks in no valid form.
   */
  addTo(body: Buffer): Buffer;
  /** True for an event that is only sent where the usage was asked for. */
  isUsageOnly(event: unknown): boolean;
}
