-- During a write to the owner's vault record, a read may return the value before or after it and is not cached.
-- The mark expires, because a writer that ends unexpectedly does not remove it.
ALTER TABLE owners ADD COLUMN writing_until timestamptz;

-- For the rare case that an administrator deletes a vault record in Keycloak. The event names the record, and
-- row-level security hides its owner from the app. Returns the owner of the record, or null.
CREATE FUNCTION forget_vault_record(record_id text) RETURNS text LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    UPDATE public.owners SET vault_id = NULL, generation = generation + 1
    WHERE vault_id = record_id RETURNING owner
  $$;
REVOKE ALL ON FUNCTION forget_vault_record(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forget_vault_record(text) TO ops_center_app;

-- One encrypted text. A process whose ENCRYPTION_KEY does not decrypt it would find every stored key undecryptable.
CREATE TABLE encryption_canary (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  token text NOT NULL,
  since timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, UPDATE ON encryption_canary TO ops_center_app;

CREATE INDEX owners_vault_id ON owners (vault_id);
