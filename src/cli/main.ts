import { Command } from 'commander';
import type { Environment } from '../config.ts';
import { refuseOldNode, wordsFor } from './failure.ts';
import { readEnvFile } from './env-file.ts';
import { listenForStop } from './signals.ts';

/*
 * The one entry of all commands. Each command's code is loaded when it is called: a production server loads
 * nothing of the quick start, whose packages are development dependencies.
 */

const cwd = process.cwd();
/** A user whom the README gives no key, so that the walk begins with the system paying. */
const DEMO_WALKER = 'professional';

/** The process's environment over `.env`. Read once a command runs. */
function environment(): Environment {
  const set = Object.entries(process.env).filter(([, value]) => value !== '');
  return { ...readEnvFile(`${cwd}/.env`), ...Object.fromEntries(set) };
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

const program = new Command('ops-center')
  .description('Ops Center: bring your own LLM keys, beside your Keycloak.')
  .showHelpAfterError();

program
  .command('dev')
  .description('start everything that is configured nowhere, then the app (npm start)')
  .action(async () => {
    const { runDev } = await import('./dev.ts');
    const { plainProgress, terminalProgress } = await import('./quickstart/progress.ts');
    const runSteps = process.stdout.isTTY ? terminalProgress() : plainProgress(print);
    const endedWell = await runDev({ environment: environment(), cwd, print, runSteps, ...listenForStop() });
    process.exitCode = endedWell ? 0 : 1;
  });

program
  .command('serve')
  .description('start the app on what is configured, and nothing else (production)')
  .action(async () => {
    const { serve } = await import('./serve.ts');
    await serve(environment(), listenForStop());
  });

program
  .command('migrate')
  .description('bring the database up to date, as MIGRATION_DATABASE_URL')
  .action(async () => {
    const { migrate } = await import('./migrate.ts');
    await migrate(environment(), print);
  });

program
  .command('doctor')
  .description('check that the Keycloak realms are fit, and say what to change')
  .action(async () => {
    const { doctor } = await import('./doctor.ts');
    process.exitCode = (await doctor(environment(), cwd, print)) ? 0 : 1;
  });

program
  .command('session')
  .argument('<user>', 'a demo user, e.g. starter')
  .description(
    "sign a demo user in through Keycloak's forms and print the session cookie's value (local mode)",
  )
  .action(async (user: string) => {
    const { demoSession } = await import('./session.ts');
    print((await demoSession(environment(), cwd, user)).session);
  });

program
  .command('demo')
  .description('walk through the main job on the running stack (npm run demo)')
  .action(async () => {
    const { demoSession } = await import('./session.ts');
    const { walkDemo } = await import('./demo.ts');
    await walkDemo({ ...(await demoSession(environment(), cwd, DEMO_WALKER)), username: DEMO_WALKER, print });
  });

try {
  refuseOldNode(process.versions.node);
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`${wordsFor(error)}\n`);
  process.exitCode = 1;
}
// What a library left open (a keep-alive connection, a timer) must not keep a finished command alive.
process.exit();
