-- Runs: queue and history are one table. The request is encrypted; when a run is finished, only its program is kept.
CREATE TABLE runs (
  id text PRIMARY KEY,
  -- Order of acceptance.
  number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  owner text NOT NULL CHECK (owner ~ '^user:'),
  server_id text NOT NULL,
  server_name text NOT NULL,
  server_type text NOT NULL,
  -- Versions of the server and its jump servers that the run uses: cleanup of an orphan needs the same servers.
  server_versions jsonb NOT NULL,
  -- Null for a plain command.
  language text,
  code_sha256 text NOT NULL,
  sealed text NOT NULL,
  status text NOT NULL CHECK (status IN ('queued', 'running', 'finished')),
  cause text,
  code integer,
  signal text,
  cleanup text,
  message text,
  duration_ms bigint,
  stdout_bytes bigint NOT NULL DEFAULT 0,
  stderr_bytes bigint NOT NULL DEFAULT 0,
  -- Sequence number of the last stored event.
  last_seq integer NOT NULL DEFAULT 0,
  cancel_requested boolean NOT NULL DEFAULT false,
  -- The process that holds the run, and the end of its lease.
  holder text NOT NULL,
  lease_until timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  finished_at timestamptz,
  CHECK ((status = 'finished') = (cause IS NOT NULL AND cleanup IS NOT NULL AND finished_at IS NOT NULL))
);
CREATE INDEX runs_history ON runs (owner, number DESC);
CREATE INDEX runs_open ON runs (owner, server_id, number) WHERE status <> 'finished';
CREATE INDEX runs_finished ON runs (finished_at) WHERE status = 'finished';
ALTER TABLE runs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON runs TO ops_center_app
  USING (owner = current_owner()) WITH CHECK (owner = current_owner());
GRANT SELECT, INSERT, UPDATE, DELETE ON runs TO ops_center_app;

-- The events of a run in encrypted batches: output can be as secret as input.
CREATE TABLE run_events (
  run_id text NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  first_seq integer NOT NULL,
  last_seq integer NOT NULL,
  owner text NOT NULL,
  stdout_bytes integer NOT NULL,
  stderr_bytes integer NOT NULL,
  sealed text NOT NULL,
  PRIMARY KEY (run_id, first_seq)
);
ALTER TABLE run_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON run_events TO ops_center_app
  USING (owner = current_owner()) WITH CHECK (owner = current_owner());
GRANT SELECT, INSERT, UPDATE, DELETE ON run_events TO ops_center_app;

-- One lock over all processes serializes starts, so that counting and changing is one step.
CREATE FUNCTION lock_run_queue() RETURNS void LANGUAGE sql
  SET search_path = pg_catalog, pg_temp
  AS $$ SELECT pg_advisory_xact_lock(7018465220381) $$;

-- Accepts a run in one round trip, with its audit row. It starts at once if the limits allow it and no other run of
-- its owner is queued, else it is queued. Runs with the caller's rights: the run's owner becomes the
-- owner of this transaction. `outcome`: running, queued, or full (nothing is stored).
CREATE FUNCTION submit_run(
  run jsonb, may_start boolean, per_user integer, per_server integer, most_queued integer,
  instance text, lease interval, audit_action text, request_id text
) RETURNS TABLE (outcome text, place integer) LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  AS $$
  DECLARE
    own text := run ->> 'owner';
    on_user integer;
    on_server integer;
    waiting integer;
    ahead integer;
  BEGIN
    PERFORM set_config('ops_center.owner', own, true);
    PERFORM public.lock_run_queue();
    SELECT count(*) FILTER (WHERE r.status = 'running'),
           count(*) FILTER (WHERE r.status = 'running' AND r.server_id = run ->> 'server_id'),
           count(*) FILTER (WHERE r.status = 'queued'),
           count(*) FILTER (WHERE r.status = 'queued' AND r.server_id = run ->> 'server_id')
      INTO on_user, on_server, waiting, ahead
      FROM public.runs r WHERE r.owner = own AND r.status <> 'finished';
    outcome := CASE
      WHEN may_start AND waiting = 0 AND on_user < per_user AND on_server < per_server THEN 'running'
      WHEN waiting < most_queued THEN 'queued'
      ELSE 'full' END;
    place := CASE WHEN outcome = 'queued' THEN ahead + 1 END;
    IF outcome <> 'full' THEN
      INSERT INTO public.audit_events (owner, actor, action, object, request_id)
        VALUES (own, own, audit_action, 'run:' || (run ->> 'id'), submit_run.request_id);
      INSERT INTO public.runs (id, owner, server_id, server_name, server_type, server_versions, language,
                               code_sha256, sealed, status, holder, lease_until, started_at)
        VALUES (run ->> 'id', own, run ->> 'server_id', run ->> 'server_name', run ->> 'server_type',
                run -> 'server_versions', run ->> 'language', run ->> 'code_sha256', run ->> 'sealed', outcome, instance,
                clock_timestamp() + lease, CASE WHEN outcome = 'running' THEN clock_timestamp() END);
    END IF;
    RETURN NEXT;
  END
  $$;

-- The functions below work across owners, which row-level security hides from the app. They return ids, owners and
-- queue positions, and no content of runs.

-- Starts queued runs: the instance's own, those that a stopping instance released (their lease is set to a past time),
-- and with `orphans` those whose lease has ended. The user with the fewest running runs goes first; the queue of one
-- user does not block others.
CREATE FUNCTION claim_runs(
  instance text, orphans boolean, most integer, per_user integer, per_server integer, lease interval
) RETURNS TABLE (id text, owner text) LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
  BEGIN
    PERFORM public.lock_run_queue();
    RETURN QUERY
    WITH running AS (
      SELECT r.owner, r.server_id, count(*) AS runs
      FROM public.runs r WHERE r.status = 'running' GROUP BY 1, 2
    ), on_server AS (
      SELECT q.id, q.owner, q.number,
        row_number() OVER (PARTITION BY q.owner, q.server_id ORDER BY q.number) + coalesce(running.runs, 0) AS load
      FROM public.runs q LEFT JOIN running USING (owner, server_id)
      WHERE q.status = 'queued'
        AND (q.holder = instance OR q.lease_until = '-infinity'
          OR orphans AND q.lease_until < clock_timestamp())
    ), of_user AS (
      SELECT s.id, s.number, row_number() OVER (PARTITION BY s.owner ORDER BY s.number)
        + coalesce((SELECT sum(running.runs) FROM running WHERE running.owner = s.owner), 0) AS load
      FROM on_server s WHERE s.load <= per_server
    ), chosen AS (
      SELECT u.id FROM of_user u WHERE u.load <= per_user ORDER BY u.load, u.number LIMIT most
    )
    UPDATE public.runs r
      SET status = 'running', holder = instance, lease_until = clock_timestamp() + lease,
          started_at = clock_timestamp()
      FROM chosen WHERE r.id = chosen.id RETURNING r.id, r.owner;
  END
  $$;

-- Renews the leases of these runs. Returns those that the instance still holds.
CREATE FUNCTION renew_runs(instance text, ids text[], lease interval)
  RETURNS TABLE (id text, cancel_requested boolean) LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    UPDATE public.runs r SET lease_until = clock_timestamp() + lease
    WHERE r.id = ANY (ids) AND r.holder = instance AND r.status <> 'finished'
    RETURNING r.id, r.cancel_requested
  $$;

-- Takes over runs whose lease has ended, for cleanup.
CREATE FUNCTION take_lost_runs(instance text, most integer, lease interval)
  RETURNS TABLE (id text, owner text) LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    UPDATE public.runs r SET holder = instance, lease_until = clock_timestamp() + lease
    WHERE r.id IN (
      SELECT l.id FROM public.runs l WHERE l.status = 'running' AND l.lease_until < clock_timestamp()
      ORDER BY l.number LIMIT most FOR UPDATE SKIP LOCKED)
    RETURNING r.id, r.owner
  $$;

-- Queue positions of an instance's queued runs among those of their owner for the same server, from 1.
CREATE FUNCTION run_places(instance text) RETURNS TABLE (id text, place integer) LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    SELECT q.id, q.place FROM (
      SELECT r.id, r.holder,
        (row_number() OVER (PARTITION BY r.owner, r.server_id ORDER BY r.number))::integer AS place
      FROM public.runs r WHERE r.status = 'queued') q
    WHERE q.holder = instance
  $$;

-- Releases an instance's queued runs to other instances, or to the next start.
CREATE FUNCTION release_runs(instance text) RETURNS void LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    UPDATE public.runs SET lease_until = '-infinity' WHERE holder = instance AND status = 'queued'
  $$;

-- Deletes old runs. Returns how many.
CREATE FUNCTION prune_runs(days integer) RETURNS bigint LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    WITH gone AS (
      DELETE FROM public.runs
      WHERE status = 'finished' AND finished_at < clock_timestamp() - make_interval(days => days)
      RETURNING 1)
    SELECT count(*) FROM gone
  $$;

REVOKE ALL ON FUNCTION
  lock_run_queue(),
  submit_run(jsonb, boolean, integer, integer, integer, text, interval, text, text),
  claim_runs(text, boolean, integer, integer, integer, interval),
  renew_runs(text, text[], interval),
  take_lost_runs(text, integer, interval),
  run_places(text),
  release_runs(text),
  prune_runs(integer)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
  lock_run_queue(),
  submit_run(jsonb, boolean, integer, integer, integer, text, interval, text, text),
  claim_runs(text, boolean, integer, integer, integer, interval),
  renew_runs(text, text[], interval),
  take_lost_runs(text, integer, interval),
  run_places(text),
  release_runs(text),
  prune_runs(integer)
TO ops_center_app;
