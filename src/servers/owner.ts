/** Who a person's servers belong to, as row-level security and the audit trail spell it. @param userId Keycloak's id. */
export function ownerOf(userId: string): string {
  return `user:${userId}`;
}
