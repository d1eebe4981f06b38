-- For the filters of the audit trail. A range of days uses the indexes of owner and time that are there.
CREATE INDEX audit_events_action ON audit_events (owner, action, id DESC);
CREATE INDEX audit_events_object ON audit_events (owner, object, id DESC);
