-- The ledger: one row for each request for which an upstream was called. Rows are added, read and deleted, never changed.
CREATE TABLE usage_requests (
  -- Order of storing, which the lists follow: the time can go back with a clock.
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- A write that is repeated, since its end is not known, adds no second row.
  id text NOT NULL UNIQUE,
  owner text NOT NULL CHECK (owner ~ '^(user|org):'),
  time timestamptz NOT NULL,
  surface text NOT NULL,
  provider text NOT NULL,
  endpoint_slug text,
  requested_model text,
  model text NOT NULL,
  served_model text,
  key_scope text NOT NULL CHECK (key_scope IN ('personal', 'organization', 'system')),
  key_id text,
  token_id text,
  status integer,
  -- How the answer ended.
  outcome text NOT NULL CHECK (outcome IN ('done', 'incomplete', 'cancelled', 'failed')),
  -- Null: the provider did not report it.
  input_tokens bigint,
  cached_tokens bigint,
  cache_write_tokens bigint,
  output_tokens bigint,
  reasoning_tokens bigint,
  -- Null: unknown.
  cost_usd numeric,
  cost_source text NOT NULL CHECK (cost_source IN ('provider', 'prices', 'unknown')),
  latency_ms bigint NOT NULL,
  first_token_ms bigint,
  attempts jsonb NOT NULL,
  CHECK ((cost_source = 'unknown') = (cost_usd IS NULL))
);
CREATE INDEX usage_requests_owner ON usage_requests (owner, number DESC);
CREATE INDEX usage_requests_time ON usage_requests USING brin (time);
ALTER TABLE usage_requests ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON usage_requests TO ops_center_app USING (owner = current_owner());
GRANT SELECT, DELETE ON usage_requests TO ops_center_app;

-- Totals of each day in UTC, which are kept when the requests are deleted. Sums count what is known.
CREATE TABLE usage_days (
  owner text NOT NULL,
  day date NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  -- Empty for none, so that they can be part of the key.
  key_id text NOT NULL,
  token_id text NOT NULL,
  requests bigint NOT NULL,
  failed bigint NOT NULL,
  input_tokens numeric NOT NULL,
  cached_tokens numeric NOT NULL,
  output_tokens numeric NOT NULL,
  cost_usd numeric NOT NULL,
  -- Requests whose cost is not known.
  unpriced bigint NOT NULL,
  PRIMARY KEY (owner, day, provider, model, key_id, token_id)
);
ALTER TABLE usage_days ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON usage_days TO ops_center_app USING (owner = current_owner());
GRANT SELECT, DELETE ON usage_days TO ops_center_app;

-- Requests that were refused before an upstream was called: one row for each process, owner, code and minute.
CREATE TABLE usage_refusals (
  id text PRIMARY KEY,
  owner text NOT NULL CHECK (owner ~ '^(user|org):'),
  code text NOT NULL,
  minute timestamptz NOT NULL,
  count bigint NOT NULL CHECK (count > 0)
);
CREATE INDEX usage_refusals_owner ON usage_refusals (owner, minute);
CREATE INDEX usage_refusals_minute ON usage_refusals USING brin (minute);
ALTER TABLE usage_refusals ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON usage_refusals TO ops_center_app USING (owner = current_owner());
GRANT SELECT, DELETE ON usage_refusals TO ops_center_app;

-- The functions below work across owners, which row-level security hides from the app: one batch has requests of many.

-- Stores a batch of requests and adds them to the totals of their days. Requests that are stored already are skipped.
-- Totals are changed in one order, so that two processes do not wait for each other.
CREATE FUNCTION record_usage(requests jsonb) RETURNS void LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    WITH stored AS (
      INSERT INTO public.usage_requests (
        id, owner, time, surface, provider, endpoint_slug, requested_model, model, served_model, key_scope, key_id,
        token_id, status, outcome, input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
        cost_usd, cost_source, latency_ms, first_token_ms, attempts)
      SELECT
        id, owner, time, surface, provider, endpoint_slug, requested_model, model, served_model, key_scope, key_id,
        token_id, status, outcome, input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
        cost_usd, cost_source, latency_ms, first_token_ms, attempts
      FROM jsonb_to_recordset(requests) AS r (
        id text, owner text, time timestamptz, surface text, provider text, endpoint_slug text, requested_model text,
        model text, served_model text, key_scope text, key_id text, token_id text, status integer, outcome text,
        input_tokens bigint, cached_tokens bigint, cache_write_tokens bigint, output_tokens bigint,
        reasoning_tokens bigint, cost_usd numeric, cost_source text, latency_ms bigint, first_token_ms bigint,
        attempts jsonb)
      ON CONFLICT (id) DO NOTHING
      RETURNING *
    )
    INSERT INTO public.usage_days AS d (
      owner, day, provider, model, key_id, token_id, requests, failed, input_tokens, cached_tokens, output_tokens,
      cost_usd, unpriced)
    SELECT owner, (time AT TIME ZONE 'UTC')::date, provider, model, coalesce(key_id, ''), coalesce(token_id, ''),
      count(*), count(*) FILTER (WHERE outcome IN ('failed', 'incomplete')),
      coalesce(sum(input_tokens), 0), coalesce(sum(cached_tokens), 0), coalesce(sum(output_tokens), 0),
      coalesce(sum(cost_usd), 0), count(*) FILTER (WHERE cost_usd IS NULL)
    FROM stored GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (owner, day, provider, model, key_id, token_id) DO UPDATE SET
      requests = d.requests + excluded.requests,
      failed = d.failed + excluded.failed,
      input_tokens = d.input_tokens + excluded.input_tokens,
      cached_tokens = d.cached_tokens + excluded.cached_tokens,
      output_tokens = d.output_tokens + excluded.output_tokens,
      cost_usd = d.cost_usd + excluded.cost_usd,
      unpriced = d.unpriced + excluded.unpriced
  $$;

-- Stores counts of refusals. A count only grows, so that a write can be repeated.
CREATE FUNCTION record_usage_refusals(refusals jsonb) RETURNS void LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    INSERT INTO public.usage_refusals AS u (id, owner, code, minute, count)
    SELECT id, owner, code, minute, count
    FROM jsonb_to_recordset(refusals) AS r (id text, owner text, code text, minute timestamptz, count bigint)
    ORDER BY id
    ON CONFLICT (id) DO UPDATE SET count = greatest(u.count, excluded.count)
  $$;

-- Deletes up to `most` requests and refusals that are this many days old; the totals of the days stay. Returns how many
-- were deleted. A number below 1 is refused, as in prune_runs.
CREATE FUNCTION prune_usage(days integer, most integer) RETURNS bigint LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
  DECLARE
    requests bigint;
    refusals bigint;
  BEGIN
    IF days IS NULL OR days < 1 THEN
      RAISE EXCEPTION 'prune_usage needs 1 day or more' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM public.usage_requests WHERE number IN (
      SELECT number FROM public.usage_requests
      WHERE time < clock_timestamp() - make_interval(days => days) LIMIT most);
    GET DIAGNOSTICS requests = ROW_COUNT;
    DELETE FROM public.usage_refusals WHERE id IN (
      SELECT id FROM public.usage_refusals
      WHERE minute < clock_timestamp() - make_interval(days => days) LIMIT most);
    GET DIAGNOSTICS refusals = ROW_COUNT;
    RETURN requests + refusals;
  END
  $$;

-- All owners in the ledger, for commands that process one owner at a time.
CREATE FUNCTION owners_of_usage() RETURNS SETOF text LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    SELECT owner FROM public.usage_days UNION SELECT owner FROM public.usage_refusals ORDER BY 1
  $$;

REVOKE ALL ON FUNCTION
  record_usage(jsonb), record_usage_refusals(jsonb), prune_usage(integer, integer), owners_of_usage()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
  record_usage(jsonb), record_usage_refusals(jsonb), prune_usage(integer, integer), owners_of_usage()
TO ops_center_app;
