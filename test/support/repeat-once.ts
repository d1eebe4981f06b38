import { NetworkError } from '@keycloak/keycloak-admin-client';

/**
 * Repeats each failed request of an admin client once if Keycloak answered 500. Keycloak does so when two requests load
 * the same role into its cache (a NullPointerException in its DefaultLazyLoader), and changes nothing then.
 */
export function repeatOnce<T extends object>(client: T): T {
  return new Proxy(client, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value === 'function') return withRepetition(value.bind(target) as Call);
      return typeof value === 'object' && value !== null ? repeatOnce(value) : value;
    },
  });
}

type Call = (...parameters: unknown[]) => unknown;

function withRepetition(call: Call): Call {
  return (...parameters) => {
    const result = call(...parameters);
    if (!(result instanceof Promise)) return result;
    return result.catch((error: unknown) => {
      if (error instanceof NetworkError && error.response.status === 500) return call(...parameters);
      throw error;
    });
  };
}
