-- While a write to the owner's vault record is under way, what is read may be of before it or after it, and
-- is not kept. A writer that died leaves its mark behind, which therefore ends by itself.
ALTER TABLE owners ADD COLUMN writing_until timestamptz;

-- For the rare case that an administrator deletes a vault record in Keycloak: the event names the record, and
-- row-level security hides from the app whose it was. Answers the owner whose record this was, if anybody's.
CREATE FUNCTION forget_vault_record(record_id text) RETURNS text LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    UPDATE public.owners SET vault_id = NULL, generation = generation + 1
    WHERE vault_id = record_id RETURNING owner
  $$;
REVOKE ALL ON FUNCTION forget_vault_record(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forget_vault_record(text) TO ops_center_app;

-- One text, sealed. A process whose ENCRYPTION_KEY does not open it would find every stored key undecryptable.
CREATE TABLE encryption_canary (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  token text NOT NULL,
  since timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, UPDATE ON encryption_canary TO ops_center_app;

CREATE INDEX owners_vault_id ON owners (vault_id);
