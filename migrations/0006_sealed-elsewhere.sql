-- What the encryption key seals beside the vault: secrets of servers, and runs.

-- Who has runs, and nothing else: as with servers, `keys check` and `keys rotate` need to know whom to ask for.
CREATE FUNCTION owners_of_runs() RETURNS SETOF text LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT DISTINCT owner FROM public.runs ORDER BY 1 $$;
REVOKE ALL ON FUNCTION owners_of_runs() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION owners_of_runs() TO ops_center_app;

-- Whether anybody has anything that is sealed: then the key that fits the canary is needed.
CREATE FUNCTION has_sealed_data() RETURNS boolean LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    SELECT public.has_vault_records()
      OR EXISTS (SELECT FROM public.user_execution_servers)
      OR EXISTS (SELECT FROM public.runs)
  $$;
REVOKE ALL ON FUNCTION has_sealed_data() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION has_sealed_data() TO ops_center_app;
