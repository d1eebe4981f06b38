-- Deletes runs that finished this many days ago or earlier, and returns how many. A number below 1 is refused: with 0 or
-- a negative one, the app's role could delete the finished runs of all owners, which row-level security hides from it.
CREATE OR REPLACE FUNCTION prune_runs(days integer) RETURNS bigint LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
  DECLARE
    deleted bigint;
  BEGIN
    IF days IS NULL OR days < 1 THEN
      RAISE EXCEPTION 'prune_runs needs 1 day or more' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM public.runs
      WHERE status = 'finished' AND finished_at < clock_timestamp() - make_interval(days => days);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
  END
  $$;
