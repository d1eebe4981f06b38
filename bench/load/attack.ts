import type { TestApp } from '../../test/support/app.ts';
import type { ServerClient } from '../../test/support/servers.ts';
import type { Load } from './attack-process.ts';

/** Load that one user causes, measured by what another user still gets. */
export interface LoadAttack {
  name: string;
  /** Settings of the app. */
  env?: Record<string, string>;
  /** Prepares the attack and, where `GET /api/v1/me` shows too little, what is measured of the other user. */
  prepare: (app: TestApp, attacker: ServerClient, other: ServerClient) => Promise<PreparedAttack>;
}

export interface LoadProbe {
  name: string;
  /** One request of the other user, which throws when it fails. */
  call: () => Promise<void>;
  /** Where a rate limit allows no more, without and during the attack each. */
  maxCalls?: number;
}

export interface PreparedAttack {
  load: Load;
  probe?: LoadProbe;
  /** Ends what `prepare` has started. */
  close?: () => Promise<void>;
}
