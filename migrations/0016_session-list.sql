-- What a user sees of the own sessions. `sid` is the secret of the cookie; `id` names the session in the API.
ALTER TABLE sessions
  ADD COLUMN id text NOT NULL DEFAULT gen_random_uuid()::text,
  ADD COLUMN owner text GENERATED ALWAYS AS ('user:' || (sess ->> 'userId')) STORED,
  ADD COLUMN keycloak_session_id text GENERATED ALWAYS AS (sess ->> 'keycloakSessionId') STORED,
  ADD COLUMN created_at timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN last_used_at timestamptz NOT NULL DEFAULT now();
-- A session lasts 12 hours from its creation.
UPDATE sessions SET created_at = expire - interval '12 hours', last_used_at = expire - interval '12 hours';
CREATE UNIQUE INDEX sessions_id ON sessions (id);
-- Row-level security keeps Postgres from using an index on an expression of jsonb, whose operators are not leakproof.
DROP INDEX sessions_user, sessions_keycloak_session;
CREATE INDEX sessions_owner ON sessions (owner);
CREATE INDEX sessions_keycloak_session ON sessions (keycloak_session_id);

-- A session is found by its secret before its owner is known, and a logout ends the sessions of several owners: both
-- happen outside of a transaction of an owner.
ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON sessions TO ops_center_app
  USING (current_owner() IS NULL OR owner = current_owner())
  WITH CHECK (current_owner() IS NULL OR owner = current_owner());

-- All processes end the work of deleted sessions. The payload names none: each process looks which of its sessions exist.
CREATE FUNCTION notify_sessions_ended() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  AS $$
  BEGIN
    IF EXISTS (SELECT FROM ended) THEN PERFORM pg_notify('ops_center_sessions', ''); END IF;
    RETURN NULL;
  END
  $$;
CREATE TRIGGER notify_sessions_ended AFTER DELETE ON sessions
  REFERENCING OLD TABLE AS ended FOR EACH STATEMENT EXECUTE FUNCTION notify_sessions_ended();
