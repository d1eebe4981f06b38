-- Which key of ENCRYPTION_KEY seals, by its fingerprint (an HMAC of a constant under it), and which ones a
-- rotation has taken the place of: a process that seals under one of these must not start, since what it stores
-- would be lost when the old key is taken away. Null in a row that was made before this was kept.
ALTER TABLE encryption_canary
  ADD COLUMN sealing_key text,
  ADD COLUMN replaced_keys text[] NOT NULL DEFAULT '{}';
