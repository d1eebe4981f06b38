-- Personal tokens of users. Only the SHA-256 of a token is stored.
CREATE TABLE personal_tokens (
  id text PRIMARY KEY,
  owner text NOT NULL CHECK (owner ~ '^user:'),
  token_sha256 bytea NOT NULL UNIQUE CHECK (length(token_sha256) = 32),
  name text NOT NULL,
  -- The first characters of the token, with which its owner recognizes it.
  prefix text NOT NULL,
  scopes text[] NOT NULL,
  -- Null where any is allowed.
  models text[],
  key_ids text[],
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  last_used_at timestamptz,
  last_client text,
  last_status integer
);
CREATE INDEX personal_tokens_owner ON personal_tokens (owner, created_at, id);
ALTER TABLE personal_tokens ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON personal_tokens TO ops_center_app
  USING (owner = current_owner()) WITH CHECK (owner = current_owner());
GRANT SELECT, INSERT, DELETE ON personal_tokens TO ops_center_app;
-- The rights of a token never change.
GRANT UPDATE (last_used_at, last_client, last_status) ON personal_tokens TO ops_center_app;

-- The owner of a token is not known before the token is found, so row-level security would hide it from the app.
CREATE FUNCTION find_personal_token(sha256 bytea)
  RETURNS TABLE (id text, owner text, scopes text[], models text[], key_ids text[], expires_at timestamptz)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    SELECT t.id, t.owner, t.scopes, t.models, t.key_ids, t.expires_at FROM public.personal_tokens t
    WHERE t.token_sha256 = sha256 AND (t.expires_at IS NULL OR t.expires_at > now())
  $$;
REVOKE ALL ON FUNCTION find_personal_token(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_personal_token(bytea) TO ops_center_app;

-- Those of the given ids whose token exists and has not expired, of any owner.
CREATE FUNCTION valid_personal_tokens(ids text[]) RETURNS SETOF text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    SELECT t.id FROM public.personal_tokens t
    WHERE t.id = ANY (ids) AND (t.expires_at IS NULL OR t.expires_at > now())
  $$;
REVOKE ALL ON FUNCTION valid_personal_tokens(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION valid_personal_tokens(text[]) TO ops_center_app;

-- All owners of tokens, for the command that finds deleted users.
CREATE FUNCTION owners_of_tokens() RETURNS SETOF text LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT DISTINCT owner FROM public.personal_tokens ORDER BY 1 $$;
REVOKE ALL ON FUNCTION owners_of_tokens() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION owners_of_tokens() TO ops_center_app;

-- All processes refuse a deleted token, also after a change by hand.
CREATE FUNCTION notify_token_deleted() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  AS $$ BEGIN PERFORM pg_notify('ops_center_tokens', OLD.id); RETURN NULL; END $$;
CREATE TRIGGER notify_token_deleted AFTER DELETE ON personal_tokens
  FOR EACH ROW EXECUTE FUNCTION notify_token_deleted();
