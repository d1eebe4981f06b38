-- How far each user is in the introduction of the page.
CREATE TABLE onboarding (
  owner text PRIMARY KEY CHECK (owner ~ '^user:'),
  current_step integer NOT NULL DEFAULT 1 CHECK (current_step BETWEEN 1 AND 3),
  started_at timestamptz NOT NULL DEFAULT now(),
  -- Finished or skipped.
  completed_at timestamptz
);
ALTER TABLE onboarding ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_row ON onboarding TO ops_center_app
  USING (owner = current_owner()) WITH CHECK (owner = current_owner());
GRANT SELECT, INSERT, UPDATE, DELETE ON onboarding TO ops_center_app;

-- All owners of rows, for the command that finds deleted users.
CREATE FUNCTION owners_of_onboarding() RETURNS SETOF text LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT owner FROM public.onboarding ORDER BY 1 $$;
REVOKE ALL ON FUNCTION owners_of_onboarding() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION owners_of_onboarding() TO ops_center_app;
