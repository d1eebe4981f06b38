-- For the filters of the audit trail. The order of the list is that of the ids; the time follows it but for clocks that
-- went back.
CREATE INDEX audit_events_action ON audit_events (owner, action, id DESC);
CREATE INDEX audit_events_object ON audit_events (owner, object, id DESC);
CREATE INDEX audit_events_owner_time ON audit_events (owner, time DESC);
