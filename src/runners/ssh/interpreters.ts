import type { SshConfig } from '../../lib/ssh/config.ts';
import type { SshInterpreters } from '../../lib/ssh/program-settings.ts';
import { listSetupSecrets, type InterpreterSettings } from '../interpreters.ts';
import type { Language } from '../runner.ts';
import { INTERPRETERS } from '../shell.ts';

/** Why code of a language was not run, for users. */
export function createMissingInterpreterMessage(interpreters: SshInterpreters, language: Language): string {
  const member = `interpreters.${language}`;
  const chosen = interpreters?.[language] ?? null;
  const [name] = INTERPRETERS[language].names;
  if (chosen === null)
    return (
      `The server has no interpreter for ${language}: searched for ${INTERPRETERS[language].names.join(' and ')} on the ` +
      `PATH of commands that are run over SSH. Install ${name}, set ${member} of the server to the path of the program, ` +
      'or set PATH in its environment.'
    );
  const reason = chosen.startsWith('/')
    ? 'is no file on the server that the account may run'
    : 'is not on the PATH of commands that are run over SSH';
  return `The server has no interpreter for ${language}: ${chosen}, which ${member} of the server names, ${reason}. Correct it, or clear it to use ${name}.`;
}

export function toInterpreterSettings(config: SshConfig): InterpreterSettings {
  const { interpreters, password, private_key: key, passphrase, environment, setup } = config;
  const secrets = [password, passphrase, ...(key ?? '').split('\n'), ...listSetupSecrets(setup)];
  return { interpreters, secrets, environment };
}
