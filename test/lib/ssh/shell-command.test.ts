import { expect, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { toShellCommand } from '../../../src/lib/ssh/shell-command.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';

describeOn('ssh', 'the command of a script', () => {
  // Installs the shells.
  sshHosts();

  const zsh = ['/usr/bin/zsh'].filter((file) => existsSync(file));
  it.each(['/bin/sh', '/bin/tcsh', '/bin/bsd-csh', '/usr/bin/fish', ...zsh])(
    'reaches sh unchanged through %s',
    (shell) => {
      const lines = [
        `printf '%s.' "$0" 'it'"'"'s !! \\n \\\\ \\041 %b $HOME'`,
        'for i in 1 2',
        'do printf x; done',
      ];
      const script = [...lines, `: '${'long! '.repeat(500)}'`, 'printf end'].join('\n');
      const output = execFileSync(shell, ['-c', toShellCommand(script)('name')], { encoding: 'utf8' });
      expect(output).toBe("name.it's !! \\n \\\\ \\041 %b $HOME.xxend");
    },
  );
});
