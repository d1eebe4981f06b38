import { Command } from 'commander';
import type { Environment } from '../config/config.ts';
import { assertNodeVersion, toErrorMessage } from './error-message.ts';
import { readEnvFile } from './env-file.ts';
import { listenForStopSignals } from './signals.ts';
import type { VaultMoveOptions } from './vault.ts';

/*
 * The one entry of all commands. Each command's code is loaded when it is called: a production server loads
 * nothing of the quick start, whose packages are development dependencies.
 */

const cwd = process.cwd();
/** A user whom the README gives no key, so that the walk begins with the system paying. */
const DEMO_USER = 'professional';

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
    const { plainProgress, terminalProgress } = await import('../dev/quickstart/progress.ts');
    const signals = listenForStopSignals();
    const runSteps = process.stdout.isTTY
      ? terminalProgress(signals.stop)
      : plainProgress(print, signals.stop);
    const endedWell = await runDev({ environment: environment(), cwd, print, runSteps, ...signals });
    process.exitCode = endedWell ? 0 : 1;
  });

program
  .command('serve')
  .description('start the app on what is configured, and nothing else (production)')
  .action(async () => {
    const { serve } = await import('./serve.ts');
    await serve(environment(), listenForStopSignals());
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
    const { createDemoSession: demoSession } = await import('./session.ts');
    print((await demoSession(environment(), cwd, user)).session);
  });

program
  .command('demo')
  .description('walk through the main job on the running stack (npm run demo)')
  .action(async () => {
    const { createDemoSession: demoSession } = await import('./session.ts');
    const { runDemo: walkDemo } = await import('./demo.ts');
    await walkDemo({ ...(await demoSession(environment(), cwd, DEMO_USER)), username: DEMO_USER, print });
  });

program
  .command('env')
  .description('write the secrets that docker-compose.yml takes into .env, and keep those that are there')
  .option('--stdout', 'print a new .env instead', false)
  .action(async (options: { stdout: boolean }) => {
    const { createComposeEnv: newComposeEnv, writeComposeEnv } = await import('./compose.ts');
    if (options.stdout) print(newComposeEnv());
    else writeComposeEnv(`${cwd}/.env`, print);
  });

program
  .command('prepare-database')
  .description('make the roles and the database that the settings name, as SUPERUSER_DATABASE_URL')
  .action(async () => {
    const { prepareDatabase } = await import('./compose.ts');
    await prepareDatabase(environment(), print);
  });

program
  .command('demo-users')
  .description('add the demo users to Keycloak, as its first administrator (local mode)')
  .action(async () => {
    const { addDemoUsers } = await import('./compose.ts');
    await addDemoUsers(environment(), print);
  });

program
  .command('demo-provider')
  .description('serve the demo provider on loopback (local mode)')
  .option('--port <number>', 'where it listens', '9465')
  .action(async (options: { port: string }) => {
    const { serveDemoProvider } = await import('./compose.ts');
    await serveDemoProvider(Number(options.port), print, listenForStopSignals());
  });

/** Where commands about stored keys take their settings from and write to. */
const createIo = () => ({
  environment: environment(),
  cwd,
  print,
  printProgress: (text: string) => void process.stderr.write(`${text}\n`),
});

const keys = program.command('keys').description('the encryption of stored keys');

keys
  .command('check')
  .description('count which stored keys decrypt under which key of ENCRYPTION_KEY; changes nothing')
  .option('--json', 'as JSON', false)
  .action(async (options: { json: boolean }) => {
    const { keysCheck } = await import('./keys.ts');
    process.exitCode = (await keysCheck(createIo(), options)) ? 0 : 1;
  });

keys
  .command('rotate')
  .description('seal every stored key under the first key of ENCRYPTION_KEY, while the app serves')
  .option('--accept-loss', 'give up what the keys of ENCRYPTION_KEY do not open, and misplaced keys', false)
  .action(async (options: { acceptLoss: boolean }) => {
    const { keysRotate } = await import('./keys.ts');
    process.exitCode = (await keysRotate(createIo(), options)) ? 0 : 1;
  });

keys
  .command('import-legacy')
  .description('copy keys in the attributes byok_<provider>_key of people into the vault')
  .option('--dry-run', 'judge every key and write nothing', false)
  .action(async (options: { dryRun: boolean }) => {
    const { keysImportLegacy } = await import('./keys.ts');
    process.exitCode = (await keysImportLegacy(createIo(), options)) ? 0 : 1;
  });

const vault = program.command('vault').description('the vault records in Keycloak');

vault
  .command('purge')
  .description('list the keys and servers of people whom Keycloak does not know any more')
  .option('--yes', 'delete them', false)
  .option('--even-most', 'also when more than a tenth of all owners (and more than three) are missing', false)
  .action(async (options: { yes: boolean; evenMost: boolean }) => {
    const { vaultPurge } = await import('./vault.ts');
    process.exitCode = (await vaultPurge(createIo(), options)) ? 0 : 1;
  });

vault
  .command('move')
  .description('move all records from where they are stored to KEYCLOAK_VAULT_REALM, with the app stopped')
  .option('--from-client-id <id>', 'the vault client of the old place', 'ops-center-vault')
  .requiredOption('--from-secret-file <path>', "a file with that client's secret")
  .option(
    '--clean-up <realm>',
    'only remove what an interrupted move left in that realm, but for keys that the new place lacks',
  )
  .option('--dry-run', 'say what would be done and write nothing', false)
  .action(async (options: VaultMoveOptions) => {
    const { vaultMove } = await import('./vault.ts');
    process.exitCode = (await vaultMove(createIo(), options)) ? 0 : 1;
  });

try {
  assertNodeVersion(process.versions.node);
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`${toErrorMessage(error)}\n`);
  process.exitCode = 1;
}
// What a library left open (a keep-alive connection, a timer) must not keep a finished command alive.
process.exit();
