-- Refusals of one route within a minute are one row with a count. Only that count changes, by count_refusals.
ALTER TABLE audit_events ADD COLUMN count integer NOT NULL DEFAULT 1 CHECK (count > 0);
-- Retention deletes by time. Rows are inserted in this order, so that a small index suffices.
CREATE INDEX audit_events_time ON audit_events USING brin (time);

-- Raises the count of a recent refusal of the transaction's owner. The app's role cannot change rows otherwise.
CREATE FUNCTION count_refusals(event_id bigint, refusals integer) RETURNS void LANGUAGE sql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$
    UPDATE public.audit_events e SET count = refusals
    WHERE e.id = event_id AND e.owner = public.current_owner() AND e.action = 'tier.refused'
      AND e.count < refusals AND e.time > now() - interval '5 minutes'
  $$;
REVOKE ALL ON FUNCTION count_refusals(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION count_refusals(bigint, integer) TO ops_center_app;
