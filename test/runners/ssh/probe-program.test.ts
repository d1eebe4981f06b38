import { expect, it } from '@jest/globals';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { startScriptedServer } from '../../lib/ssh/scripted-server.ts';
import { afterThisTest, neverAborted, serverAt } from '../../lib/ssh/servers.ts';
import { describeOn } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import { createPath, removePrograms, replaceProgram } from './local-runs.ts';
import { createReadyFrame, openRunner, targetAt } from './ssh-runs.ts';

/** The command that the test of a server runs. */
async function readProbeCommand(): Promise<string> {
  let input = '';
  const server = await startScriptedServer({
    exec: (channel, command) => {
      channel.write(createReadyFrame(command));
      channel.on('data', (chunk: Buffer) => {
        input += chunk.toString('latin1');
        if (input.includes('\ngo\n')) channel.end();
      });
    },
  });
  const login = { username: 'somebody', password: 'password-of-nobody' };
  await openRunner().test(targetAt(serverAt(server, login)), neverAborted());
  return /^.*setsid sleep[^]*?(?=\ngo\n)/m.exec(input)?.[0] ?? '';
}

describeOn('ssh', 'the program of the test of an SSH server', () => {
  it.each([
    ['with setsid', () => undefined],
    ['without setsid', removePrograms('setsid')],
  ])('starts a second process on a host %s', async (_name, changePath) => {
    const command = await readProbeCommand();
    const folder = createPath('/usr/bin/dash');
    changePath(folder);
    const record = path.join(folder, 'record');
    replaceProgram('sleep', `echo $$ >>${record}; exec /usr/bin/sleep "$@"`)(folder);
    const readPids = () => readFileSync(record, { encoding: 'utf8', flag: 'a+' }).trim().split('\n');
    const env = { PATH: folder, OPS_TEST_NONCE: 'nonce' };
    const program = spawn('sh', ['-c', command], { env, stdio: 'ignore', detached: true });
    afterThisTest(async () => {
      const isOver = once(program, 'exit');
      // The group first: its shell starts another process in place of one that is killed.
      spawnSync('kill', ['-KILL', '--', `-${program.pid ?? 0}`, ...readPids()]);
      await isOver;
    });
    expect(await until(readPids, ({ length }) => length > 1)).toHaveLength(2);
  });
});
