/** How to reach and use one namespace of one cluster, secrets in the clear. */
export interface ClusterAccess {
  /** https; the path goes before that of every request. */
  server: URL;
  /** PEM; null are the public certificate authorities. */
  ca: string | null;
  namespace: string;
  /** A service account's, or any bearer token; null where a certificate identifies. */
  token: string | null;
  /** PEM. */
  client: { cert: string; key: string } | null;
}
