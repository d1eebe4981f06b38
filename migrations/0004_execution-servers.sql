-- Execution servers. Secret members of `connection_config` are encrypted, one token per member, together with their
-- owner, server and destination. `user_id` is Keycloak's id of the user.
CREATE TABLE user_execution_servers (
  id uuid PRIMARY KEY,
  user_id varchar(255) NOT NULL,
  name varchar(255) NOT NULL,
  server_type varchar(50) NOT NULL CHECK (server_type IN ('ssh', 'docker', 'kubernetes', 'local')),
  connection_config jsonb NOT NULL CHECK (jsonb_typeof(connection_config) = 'object'),
  workspace_path varchar(500),
  is_default boolean NOT NULL DEFAULT false,
  is_active boolean NOT NULL DEFAULT true,
  -- Incremented by every change of the settings. A test result is stored only if the version is unchanged.
  version integer NOT NULL DEFAULT 1,
  -- {type, fingerprint} that the owner has confirmed.
  host_key jsonb,
  last_tested_at timestamptz,
  last_used_at timestamptz,
  test_status varchar(50) NOT NULL DEFAULT 'untested',
  -- {message, stages, host_key} of the last test.
  test_details jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX user_execution_servers_user ON user_execution_servers (user_id, created_at, id);
CREATE UNIQUE INDEX user_execution_servers_default ON user_execution_servers (user_id) WHERE is_default;
ALTER TABLE user_execution_servers ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON user_execution_servers TO ops_center_app
  USING ('user:' || user_id = current_owner()) WITH CHECK ('user:' || user_id = current_owner());
GRANT SELECT, INSERT, UPDATE, DELETE ON user_execution_servers TO ops_center_app;

-- All owners of servers. Row-level security hides the rows of other owners from the app; the commands that re-encrypt
-- all secrets or find deleted users process one owner at a time.
CREATE FUNCTION owners_of_servers() RETURNS SETOF text LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT DISTINCT 'user:' || user_id FROM public.user_execution_servers ORDER BY 1 $$;
REVOKE ALL ON FUNCTION owners_of_servers() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION owners_of_servers() TO ops_center_app;
