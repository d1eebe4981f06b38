-- Whether personal tokens may run code on a server. Its owner decides, with a session.
ALTER TABLE user_execution_servers ADD COLUMN token_runs boolean NOT NULL DEFAULT false;
