import path from 'node:path';
import type { Demo } from '../../lib/keycloak/demo-users.ts';

export interface Summary {
  appUrl: string;
  cookieName: string;
  /** Null if Keycloak was not started by this stack: it then has no demo users. */
  ownKeycloak: { url: string; adminUser: string; adminPasswordFile: string; demo: Demo } | null;
  logFile: string;
  /** Printed paths are relative to it. */
  cwd: string;
}

/** Text printed after a successful start. Contains no secret. */
export function formatSummary(summary: Summary): string {
  return [
    '',
    'Ops Center is running.',
    '',
    ...formatFacts(summary),
    '',
    ...formatNextSteps(summary),
    '',
  ].join('\n');
}

function formatFacts({ appUrl, ownKeycloak, logFile, cwd }: Summary): string[] {
  const toRelative = (file: string) => path.relative(cwd, file);
  const lines = [`  Address           ${appUrl}`];
  if (ownKeycloak !== null) {
    const { demo, url, adminUser, adminPasswordFile } = ownKeycloak;
    lines.push('  Demo users        password "demo"; user (tier):');
    for (const user of demo.users)
      lines.push(`                    ${user.username} (${user.attributes.subscription_tier[0]})`);
    lines.push(
      `  Keycloak console  ${url}/admin/, user "${adminUser}"; password: cat ${toRelative(adminPasswordFile)}`,
    );
  }
  lines.push(`  Log               ${toRelative(logFile)}`);
  return lines;
}

/** Lines to paste, for curl, OpenAI's SDKs and Claude Code. */
function formatTokenUses(appUrl: string): string[] {
  const token = '$(npm run -s ops -- token starter)';
  return [
    `curl ${appUrl}/v1/chat/completions -H "Authorization: Bearer ${token}" \\`,
    `  -H "Content-Type: application/json" \\`,
    `  -d '{"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}'`,
    `export OPENAI_BASE_URL=${appUrl}/v1 OPENAI_API_KEY=${token}`,
    `ANTHROPIC_BASE_URL=${appUrl} ANTHROPIC_AUTH_TOKEN=${token} claude`,
  ];
}

function formatNextSteps({ appUrl, cookieName }: Summary): string[] {
  return [
    'Add a key as the user "starter" (in another terminal), or run `npm run demo`:',
    '',
    `  SESSION=$(npm run -s ops -- session starter)`,
    `  curl -X POST ${appUrl}/api/v1/byok/keys/add \\`,
    '    -H "Content-Type: application/json" \\',
    `    -H "Cookie: ${cookieName}=$SESSION" \\`,
    `    -d '{"provider": "demo", "key": "demo-my-first-key", "label": "My first key"}'`,
    '',
    'Or use a personal token of that user. Each line creates one, which is valid for 7 days:',
    '',
    ...formatTokenUses(appUrl).map((line) => `  ${line}`),
    '',
    'To run code on this machine, see "Run code" in README.md: npm run ops -- demo-host',
    '',
    'Ctrl-C stops everything that was started.',
  ];
}
