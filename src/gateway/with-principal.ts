import type { Principal } from '../http/principal.ts';
import type { HttpCall } from '../http/route.ts';

/** @throws Error when the route is public. */
export function withPrincipal(call: HttpCall): HttpCall & { principal: Principal } {
  if (call.principal === null) throw new Error('this route needs a principal');
  return { ...call, principal: call.principal };
}
