/** Address that signs in and comes back to the address that is open now. */
export function loginUrl(): string {
  const { pathname, search } = window.location;
  return `/auth/login?return_to=${encodeURIComponent(pathname + search)}`;
}
