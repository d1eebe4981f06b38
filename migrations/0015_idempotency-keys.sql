-- Requests with an Idempotency-Key that create an object: a repeat finds what the first one has created.
CREATE TABLE idempotency_keys (
  owner text NOT NULL CHECK (owner ~ '^user:'),
  -- Method and declared path.
  route text NOT NULL,
  -- HMACs of the key with its credential, and of the input: the input may hold passwords that could be guessed.
  key_mac text NOT NULL,
  input_mac text NOT NULL,
  -- Chosen before the object is created.
  object_id text NOT NULL,
  -- Whether the object was stored, written in the transaction that stores it.
  created boolean NOT NULL DEFAULT false,
  -- Encrypted; null before the answer, and for answers that hold a secret.
  answer text,
  -- The request is being processed until then; a process that was killed leaves the row so.
  lease_until timestamptz NOT NULL,
  time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (owner, route, key_mac)
);
CREATE INDEX idempotency_keys_object ON idempotency_keys (owner, object_id);
CREATE INDEX idempotency_keys_time ON idempotency_keys (time);
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON idempotency_keys TO ops_center_app
  USING (owner = current_owner()) WITH CHECK (owner = current_owner());
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO ops_center_app;

-- Runs with the rights of the role that stores the object, in its transaction: no crash can separate the two. Keys are
-- stored in Keycloak; `keys/pool-writer.ts` marks them.
CREATE FUNCTION mark_created_object() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  AS $$
  BEGIN
    UPDATE public.idempotency_keys SET created = true
      WHERE object_id = NEW.id::text
        AND owner = CASE TG_TABLE_NAME
          WHEN 'user_execution_servers' THEN 'user:' || (to_jsonb(NEW) ->> 'user_id')
          ELSE to_jsonb(NEW) ->> 'owner' END;
    RETURN NULL;
  END
  $$;
CREATE TRIGGER mark_created AFTER INSERT ON user_execution_servers
  FOR EACH ROW EXECUTE FUNCTION mark_created_object();
CREATE TRIGGER mark_created AFTER INSERT ON personal_tokens
  FOR EACH ROW EXECUTE FUNCTION mark_created_object();
CREATE TRIGGER mark_created AFTER INSERT ON runs
  FOR EACH ROW EXECUTE FUNCTION mark_created_object();

-- Deletes rows of all owners that no request may use any more. The age is fixed: with a parameter, the app's role could
-- delete the rows of all owners.
CREATE FUNCTION prune_idempotency_keys() RETURNS void LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ DELETE FROM public.idempotency_keys WHERE time < clock_timestamp() - interval '24 hours' $$;
REVOKE ALL ON FUNCTION prune_idempotency_keys() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prune_idempotency_keys() TO ops_center_app;

-- All owners of rows, for the command that finds deleted users.
CREATE FUNCTION owners_of_idempotency_keys() RETURNS SETOF text LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT DISTINCT owner FROM public.idempotency_keys ORDER BY 1 $$;
REVOKE ALL ON FUNCTION owners_of_idempotency_keys() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION owners_of_idempotency_keys() TO ops_center_app;
