/** Address and credentials for one namespace of one cluster, with secrets in plaintext. */
export interface ClusterAccess {
  /** https. Its path is the prefix of every request path. */
  server: URL;
  /** PEM. Null is the public certificate authorities. */
  ca: string | null;
  namespace: string;
  /** A service account's token, or any bearer token. Null if a client certificate is used. */
  token: string | null;
  /** PEM. */
  client: { cert: string; key: string } | null;
}
