import { Command } from 'commander';
import type { Environment } from '../config/config.ts';
import { assertNodeVersion, toErrorMessage } from './error-message.ts';
import { readEnvFile } from './env-file.ts';
import { listenForStopSignals } from './signals.ts';
import type { VaultMoveOptions } from './vault.ts';

/*
 * Entry point of all commands. The code of a command is loaded when the command runs: a production server does not
 * load the quick start, which needs development dependencies.
 */

const cwd = process.cwd();
/** The README adds no key for this user, so the first request of the demo is paid by the system. */
const DEMO_USER = 'professional';

/** Settings of `.env`, overridden by the environment variables of the process. */
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
  .description('start each server that is not configured, then the app (npm start)')
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
  .description('start the app only, on the configured servers (production)')
  .action(async () => {
    const { serve } = await import('./serve.ts');
    await serve(environment(), listenForStopSignals());
  });

program
  .command('migrate')
  .description('run pending database migrations, as the role of MIGRATION_DATABASE_URL')
  .action(async () => {
    const { migrate } = await import('./migrate.ts');
    await migrate(environment(), print);
  });

program
  .command('doctor')
  .description('check the Keycloak realms, and say what to change')
  .action(async () => {
    const { doctor } = await import('./doctor.ts');
    process.exitCode = (await doctor(environment(), cwd, print)) ? 0 : 1;
  });

program
  .command('session')
  .argument('<user>', 'a demo user, e.g. starter')
  .description("sign in a demo user through Keycloak's forms and print the session cookie (local mode)")
  .action(async (user: string) => {
    const { createDemoSession } = await import('./session.ts');
    print((await createDemoSession(environment(), cwd, user)).session);
  });

program
  .command('token')
  .argument('<user>', 'a demo user, e.g. starter')
  .description('create a personal token of a demo user for 7 days and print it (local mode)')
  .action(async (user: string) => {
    const { createDemoSession } = await import('./session.ts');
    const { createDemoToken } = await import('./token.ts');
    print(await createDemoToken(await createDemoSession(environment(), cwd, user, 'token')));
  });

program
  .command('demo')
  .description('run the main use case on the running stack (npm run demo)')
  .action(async () => {
    const { createDemoSession } = await import('./session.ts');
    const { runDemo } = await import('./demo.ts');
    await runDemo({
      ...(await createDemoSession(environment(), cwd, DEMO_USER)),
      username: DEMO_USER,
      print,
    });
  });

program
  .command('demo-host')
  .description('offer this machine to the running stack as an execution server, until Ctrl-C (local mode)')
  .action(async () => {
    const { runDemoHost } = await import('./demo-host.ts');
    await runDemoHost({ environment: environment(), cwd, print, ...listenForStopSignals() });
  });

program
  .command('env')
  .description('add missing secrets for docker-compose.yml to .env')
  .option('--stdout', 'print a new .env instead of writing the file', false)
  .action(async (options: { stdout: boolean }) => {
    const { createComposeEnv, writeComposeEnv } = await import('./compose.ts');
    if (options.stdout) print(createComposeEnv());
    else writeComposeEnv(`${cwd}/.env`, print);
  });

program
  .command('compose-secrets')
  .argument('<folder>', 'folder with one subfolder for each volume of docker-compose.yml')
  .description('write the secrets that the services of docker-compose.yml read from files')
  .action(async (folder: string) => {
    const { writeComposeSecrets } = await import('./compose-secrets.ts');
    writeComposeSecrets(environment(), folder, print);
  });

program
  .command('prepare-database')
  .description('create the configured roles and database, as the role of SUPERUSER_DATABASE_URL')
  .action(async () => {
    const { prepareDatabase } = await import('./compose.ts');
    await prepareDatabase(environment(), print);
  });

program
  .command('demo-users')
  .description('add the demo users to Keycloak, as its bootstrap administrator (local mode)')
  .action(async () => {
    const { addDemoUsers } = await import('./compose.ts');
    await addDemoUsers(environment(), print);
  });

program
  .command('demo-provider')
  .description('serve the demo provider on loopback (local mode)')
  .option('--port <number>', 'port to listen on', '9465')
  .action(async (options: { port: string }) => {
    const { serveDemoProvider } = await import('./compose.ts');
    await serveDemoProvider(Number(options.port), print, listenForStopSignals());
  });

/** Environment and output of the `keys` and `vault` commands. */
const createIo = () => ({
  environment: environment(),
  cwd,
  print,
  printProgress: (text: string) => void process.stderr.write(`${text}\n`),
});

program
  .command('audit')
  .description('the audit trail')
  .command('prune')
  .description('delete events older than AUDIT_DAYS, as the role of MIGRATION_DATABASE_URL')
  .action(async () => {
    const { auditPrune } = await import('./audit.ts');
    await auditPrune(environment(), print);
  });

const keys = program.command('keys').description('check, re-encrypt and import stored keys');

keys
  .command('check')
  .description('count the stored keys that each key of ENCRYPTION_KEY decrypts; changes nothing')
  .option('--json', 'print JSON', false)
  .action(async (options: { json: boolean }) => {
    const { keysCheck } = await import('./keys.ts');
    process.exitCode = (await keysCheck(createIo(), options)) ? 0 : 1;
  });

keys
  .command('rotate')
  .description('re-encrypt all stored keys with the first key of ENCRYPTION_KEY; the app can keep running')
  .option(
    '--accept-loss',
    'accept the loss of secrets that no key of ENCRYPTION_KEY decrypts, and of misplaced keys',
    false,
  )
  .action(async (options: { acceptLoss: boolean }) => {
    const { keysRotate } = await import('./keys.ts');
    process.exitCode = (await keysRotate(createIo(), options)) ? 0 : 1;
  });

keys
  .command('import-legacy')
  .description('copy keys from the user attributes byok_<provider>_key into the vault')
  .option('--dry-run', 'check every key and write nothing', false)
  .action(async (options: { dryRun: boolean }) => {
    const { keysImportLegacy } = await import('./keys.ts');
    process.exitCode = (await keysImportLegacy(createIo(), options)) ? 0 : 1;
  });

const vault = program.command('vault').description('the vault records in Keycloak');

vault
  .command('purge')
  .description('list the keys and other data of users that no longer exist in Keycloak')
  .option('--yes', 'delete them', false)
  .option(
    '--even-most',
    'also when more than half of all owners, or more than a tenth and more than three, are missing',
    false,
  )
  .action(async (options: { yes: boolean; evenMost: boolean }) => {
    const { vaultPurge } = await import('./vault.ts');
    process.exitCode = (await vaultPurge(createIo(), options)) ? 0 : 1;
  });

vault
  .command('move')
  .description('move all vault records to KEYCLOAK_VAULT_REALM; the app must be stopped')
  .option('--from-client-id <id>', 'vault client of the old realm', 'ops-center-vault')
  .requiredOption('--from-secret-file <path>', "file with that client's secret")
  .option(
    '--clean-up <realm>',
    'only remove what an interrupted move left in that realm; keys missing in the new realm are kept',
  )
  .option('--dry-run', 'print what would be done and write nothing', false)
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
// Exit even if a library has left a keep-alive connection or a timer open.
process.exit();
