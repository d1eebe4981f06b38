import type { Provider } from '../../providers/provider.ts';
import type { GatewayCall, UpstreamCalls } from './calls.ts';

/** Calls whose attempts, usage and end are followed for the ledger. */
export function followCalls(calls: UpstreamCalls): UpstreamCalls {
  return {
    async send(call, target, isLastAttempt) {
      call.signal.throwIfAborted();
      askForUsage(call, target.provider);
      call.answer.beginAttempt(target.receipt);
      try {
        const response = await calls.send(call, target, isLastAttempt);
        call.answer.endAttempt(response);
        if (response.kind === 'json') call.answer.readResponse(response.usage);
        return response;
      } catch (error) {
        call.answer.failAttempt(error, call.signal);
        throw error;
      }
    },
    async respond(call, target, response) {
      try {
        await calls.respond(call, target, response);
        if (call.answer.toEnd(call.signal) === 'cancelled')
          call.answer.failAttempt(call.signal.reason, call.signal);
      } catch (error) {
        call.answer.failAttempt(error, call.signal);
        throw error;
      }
    },
  };
}

/**
 * Asks for the usage of a stream where the provider understands the question. The client receives the same events as
 * without it.
 */
function askForUsage({ answer, body, surface }: GatewayCall, provider: Provider): void {
  const { streamRequest } = surface.usage;
  if (streamRequest === undefined || !body.isStreaming || !provider.reportsStreamUsage) return;
  if (body.edit((bytes) => streamRequest.addTo(bytes))) answer.hideUsageEvent();
}
