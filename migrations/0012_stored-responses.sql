-- Which key made a response that its provider stores. Requests that refer to it use the same key. Nothing of the response
-- itself is stored here.
CREATE TABLE stored_responses (
  owner text NOT NULL,
  id text NOT NULL CHECK (length(id) <= 256),
  provider text NOT NULL,
  key_id text NOT NULL,
  -- The address that the key brings; null for the provider's or operator's address.
  endpoint text,
  model text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (owner, id)
);
CREATE INDEX stored_responses_created_at ON stored_responses (created_at);
ALTER TABLE stored_responses ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON stored_responses TO ops_center_app
  USING (owner = current_owner()) WITH CHECK (owner = current_owner());
GRANT SELECT, INSERT, UPDATE, DELETE ON stored_responses TO ops_center_app;

-- Writes a row in one round trip, with the caller's rights: its owner becomes the owner of this transaction.
CREATE FUNCTION record_response(response jsonb) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  AS $$
  BEGIN
    PERFORM set_config('ops_center.owner', response ->> 'owner', true);
    INSERT INTO public.stored_responses (owner, id, provider, key_id, endpoint, model)
      VALUES (response ->> 'owner', response ->> 'id', response ->> 'provider', response ->> 'key_id',
              response ->> 'endpoint', response ->> 'model')
      ON CONFLICT (owner, id) DO UPDATE
        SET provider = excluded.provider, key_id = excluded.key_id, endpoint = excluded.endpoint,
            model = excluded.model, created_at = now();
  END
  $$;
REVOKE ALL ON FUNCTION record_response(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_response(jsonb) TO ops_center_app;

-- Deletes the rows of all owners that are this many days old. A number below 1 is refused: with it, the app's role could
-- delete the rows of all owners, which row-level security hides from it.
CREATE FUNCTION prune_stored_responses(days integer) RETURNS bigint LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
  DECLARE
    deleted bigint;
  BEGIN
    IF days IS NULL OR days < 1 THEN
      RAISE EXCEPTION 'prune_stored_responses needs 1 day or more' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM public.stored_responses WHERE created_at < clock_timestamp() - make_interval(days => days);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
  END
  $$;
REVOKE ALL ON FUNCTION prune_stored_responses(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prune_stored_responses(integer) TO ops_center_app;

-- All owners of rows, for the command that finds deleted users.
CREATE FUNCTION owners_of_stored_responses() RETURNS SETOF text LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT DISTINCT owner FROM public.stored_responses ORDER BY 1 $$;
REVOKE ALL ON FUNCTION owners_of_stored_responses() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION owners_of_stored_responses() TO ops_center_app;
