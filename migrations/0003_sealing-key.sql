-- Fingerprint (an HMAC of a constant) of the key of ENCRYPTION_KEY that encrypts, and of the keys that a rotation has
-- replaced. A process that encrypts under a replaced key must not start: what it stores would be lost when the old
-- key is removed. Null in rows older than this column.
ALTER TABLE encryption_canary
  ADD COLUMN sealing_key text,
  ADD COLUMN replaced_keys text[] NOT NULL DEFAULT '{}';
