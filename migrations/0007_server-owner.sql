-- Rows of servers name their owner like the rows of all other tables. The column is computed while only users own
-- servers; `DROP EXPRESSION` makes it an ordinary one when organizations do. Then these must change too:
-- `user_id NOT NULL`, the unique index `user_execution_servers_default (user_id)`, and the check
-- `runs.owner ~ '^user:'`.
ALTER TABLE user_execution_servers
  ADD COLUMN owner text NOT NULL GENERATED ALWAYS AS ('user:' || user_id) STORED;
CREATE INDEX user_execution_servers_owner ON user_execution_servers (owner, created_at, id);
DROP INDEX user_execution_servers_user;

DROP POLICY own_rows ON user_execution_servers;
CREATE POLICY own_rows ON user_execution_servers TO ops_center_app
  USING (owner = current_owner()) WITH CHECK (owner = current_owner());

CREATE OR REPLACE FUNCTION owners_of_servers() RETURNS SETOF text LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT DISTINCT owner FROM public.user_execution_servers ORDER BY 1 $$;
