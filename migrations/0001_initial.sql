-- The app connects as a member of ops_center_app, which owns nothing, so that row-level security applies to it.
-- Migrations run under the role that owns the schema.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ops_center_app') THEN
    CREATE ROLE ops_center_app NOLOGIN;
  END IF;
END
$$;

GRANT USAGE ON SCHEMA public TO ops_center_app;

-- The owner whose rows a transaction may see. The app sets it; unset it is null, and no rows are visible.
CREATE FUNCTION current_owner() RETURNS text LANGUAGE sql STABLE
  AS $$ SELECT nullif(current_setting('ops_center.owner', true), '') $$;

-- Owners of keys. `generation` is incremented before and after each write to the owner's vault record, so that a
-- value read before a change is never cached after it.
CREATE TABLE owners (
  owner text PRIMARY KEY CHECK (owner ~ '^(user|org):'),
  vault_id text,
  generation bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE owners ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_row ON owners TO ops_center_app
  USING (owner = current_owner()) WITH CHECK (owner = current_owner());
GRANT SELECT, INSERT, UPDATE ON owners TO ops_center_app;

-- Location of the vault records: one row, written at the first start and compared at every later start.
CREATE TABLE vault_place (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  realm text NOT NULL,
  -- True where a user's vault record is the user itself.
  record_is_user boolean NOT NULL,
  since timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, UPDATE ON vault_place TO ops_center_app;

-- Whether any vault record exists. A function, because row-level security hides the owners from the app.
CREATE FUNCTION has_vault_records() RETURNS boolean LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT EXISTS (SELECT FROM public.owners WHERE vault_id IS NOT NULL) $$;
REVOKE ALL ON FUNCTION has_vault_records() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION has_vault_records() TO ops_center_app;

-- The audit trail. Rows are inserted and read, never changed.
CREATE TABLE audit_events (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  owner text NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  object text NOT NULL,
  request_id text NOT NULL,
  time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_events_owner ON audit_events (owner, id DESC);
ALTER TABLE audit_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON audit_events TO ops_center_app
  USING (owner = current_owner()) WITH CHECK (owner = current_owner());
GRANT SELECT, INSERT ON audit_events TO ops_center_app;

-- Key status. The encrypted key itself is in Keycloak.
CREATE TABLE provider_key_facts (
  owner text NOT NULL,
  provider text NOT NULL,
  key_id text NOT NULL,
  last_used_at timestamptz,
  last_tested_at timestamptz,
  test_status text NOT NULL DEFAULT 'untested',
  test_message text,
  -- Consecutive 401 responses; they determine the back-off.
  refusals integer NOT NULL DEFAULT 0,
  set_aside_until timestamptz,
  PRIMARY KEY (owner, provider, key_id)
);
ALTER TABLE provider_key_facts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON provider_key_facts TO ops_center_app
  USING (owner = current_owner()) WITH CHECK (owner = current_owner());
GRANT SELECT, INSERT, UPDATE, DELETE ON provider_key_facts TO ops_center_app;

-- Browser sessions, in the layout of connect-pg-simple. Tokens inside `sess` are encrypted.
CREATE TABLE sessions (
  sid text PRIMARY KEY,
  sess jsonb NOT NULL,
  expire timestamptz NOT NULL
);
CREATE INDEX sessions_expire ON sessions (expire);
CREATE INDEX sessions_user ON sessions ((sess ->> 'userId'));
CREATE INDEX sessions_keycloak_session ON sessions ((sess ->> 'keycloakSessionId'));
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO ops_center_app;

-- Received logouts. A sign-in that is in progress when its logout arrives must not create a session.
CREATE TABLE logout_markers (
  kind text NOT NULL CHECK (kind IN ('user', 'keycloak_session')),
  value text NOT NULL,
  -- Sessions whose sign-in is not after this time are ended.
  logged_out_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (kind, value)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON logout_markers TO ops_center_app;

-- Ids of received back-channel logout tokens, so that none is used twice.
CREATE TABLE logout_token_ids (
  jti text PRIMARY KEY,
  expires_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, DELETE ON logout_token_ids TO ops_center_app;

-- Cursor of Keycloak's admin events, in Keycloak's time (epoch milliseconds).
CREATE TABLE event_cursors (
  realm text PRIMARY KEY,
  read_to_ms bigint NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON event_cursors TO ops_center_app;
