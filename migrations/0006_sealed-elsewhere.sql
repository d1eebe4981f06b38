-- What the encryption key encrypts outside the vault: secrets of servers, and runs.

-- All owners of runs. `keys check` and `keys rotate` process one owner at a time.
CREATE FUNCTION owners_of_runs() RETURNS SETOF text LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT DISTINCT owner FROM public.runs ORDER BY 1 $$;
REVOKE ALL ON FUNCTION owners_of_runs() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION owners_of_runs() TO ops_center_app;

-- Whether any encrypted data exists: then the key that decrypts the canary is required.
CREATE FUNCTION has_sealed_data() RETURNS boolean LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    SELECT public.has_vault_records()
      OR EXISTS (SELECT FROM public.user_execution_servers)
      OR EXISTS (SELECT FROM public.runs)
  $$;
REVOKE ALL ON FUNCTION has_sealed_data() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION has_sealed_data() TO ops_center_app;
