import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Linter } from 'eslint';
import { cruise, type ICruiseOptions, type ICruiseResult, type IFlattenedRuleSet } from 'dependency-cruiser';

import { functionLength } from '../scripts/function-length.ts';

interface RuleFile extends IFlattenedRuleSet {
  forbidden: NonNullable<IFlattenedRuleSet['forbidden']>;
  options: ICruiseOptions;
}
const rules = createRequire(import.meta.url)('../.dependency-cruiser.cjs') as RuleFile;

/** For each dependency rule, files that break it: path -> text. */
const VIOLATIONS: Record<string, Record<string, string>> = {
  'no-circular': { 'src/lib/a.ts': "import './b.ts';", 'src/lib/b.ts': "import './a.ts';" },
  'no-unresolvable': { 'src/lib/a.ts': "import './nowhere.ts';" },
  'lib-is-leaf': { 'src/lib/a.ts': "import '../config/tiers.ts';", 'src/config/tiers.ts': '' },
  'provider-imports-contract-only': { 'src/providers/a.ts': "import './b.ts';", 'src/providers/b.ts': '' },
  'provider-has-no-framework': { 'src/providers/a.ts': "import 'express';" },
  'runner-imports-contract-only': {
    'src/runners/ssh/index.ts': "import '../docker/index.ts';",
    'src/runners/docker/index.ts': '',
  },
  'heavy-clients-are-loaded-on-use': {
    'src/runners/kubernetes/index.ts': "import '@kubernetes/client-node';",
  },
  'server-clients-in-runners-only': { 'src/servers/a.ts': "import 'ssh2';" },
  'http-imports-no-feature': { 'src/http/a.ts': "import '../keys/service.ts';", 'src/keys/service.ts': '' },
  'features-import-services-only': {
    'src/gateway/a.ts': "import '../keys/vault.ts';",
    'src/keys/vault.ts': '',
  },
  'features-are-entered-by-service-or-routes': {
    'src/app.ts': "import './health/metrics.ts';",
    'src/health/metrics.ts': '',
  },
  'only-commands-import-key-administration': {
    'src/context.ts': "import './keys/admin/move.ts';",
    'src/keys/admin/move.ts': '',
  },
  'shared-folders-import-no-feature': {
    'src/config/config.ts': "import '../keys/service.ts';",
    'src/keys/service.ts': '',
  },
  'page-imports-schemas-only': {
    'src/web/a.tsx': "import '../keys/service.ts';",
    'src/keys/service.ts': '',
  },
  'server-imports-no-page': { 'src/page/routes.ts': "import '../web/a.ts';", 'src/web/a.ts': '' },
  'service-re-exports-no-store': {
    'src/runs/service.ts': "export { list } from './runs-store.ts';",
    'src/runs/runs-store.ts': 'export const list = 1;',
  },
  'pure-files-do-no-io': {
    'src/keys/pool-edit.ts': "import './stored-key.ts';",
    'src/keys/stored-key.ts': "import '../lib/postgres/database.ts';",
    'src/lib/postgres/database.ts': '',
  },
  'pure-files-import-no-package-that-does-io': {
    'src/gateway/translate/a.ts': "import '../../lib/a.ts';",
    'src/lib/a.ts': "import 'node:fs';",
  },
  'surfaces-do-not-import-each-other': {
    'src/gateway/surfaces/models/a.ts': "import '../openai-chat/b.ts';",
    'src/gateway/surfaces/openai-chat/b.ts': '',
  },
  'gateway-parts-import-no-surface': {
    'src/gateway/upstream/a.ts': "import '../surfaces/models/b.ts';",
    'src/gateway/surfaces/models/b.ts': '',
  },
  'features-import-no-entry-point': { 'src/keys/a.ts': "import '../context.ts';", 'src/context.ts': '' },
  'store-belongs-to-its-feature': {
    'src/context.ts': "import './keys/a-store.ts';",
    'src/keys/a-store.ts': '',
  },
  'demo-upstream-imports-lib-only': {
    'src/dev/demo-upstream/a.ts': "import '../../config/tiers.ts';",
    'src/config/tiers.ts': '',
  },
  'only-commands-import-dev': { 'src/app.ts': "import './dev/a.ts';", 'src/dev/a.ts': '' },
  'server-is-not-imported-by-the-app': { 'src/app.ts': "import './server.ts';", 'src/server.ts': '' },
  'production-needs-no-dev-dependency': { 'src/lib/a.ts': "import 'listr2';" },
  'quick-start-is-loaded-on-use': { 'src/cli/main.ts': "import './dev.ts';", 'src/cli/dev.ts': '' },
};

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ops-center-architecture-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

async function brokenRules(files: Record<string, string>, name: string): Promise<string[]> {
  const baseDir = path.join(folder, name);
  const packages = {
    dependencies: { express: '*', zod: '*', ssh2: '*', '@kubernetes/client-node': '*' },
    devDependencies: { listr2: '*' },
  };
  const all = {
    'package.json': JSON.stringify({ type: 'module', ...packages }),
    'node_modules/express/package.json': '{"name":"express","main":"index.js"}',
    'node_modules/express/index.js': '',
    'node_modules/zod/package.json': '{"name":"zod","main":"index.js"}',
    'node_modules/zod/index.js': '',
    'node_modules/ssh2/package.json': '{"name":"ssh2","main":"index.js"}',
    'node_modules/ssh2/index.js': '',
    'node_modules/@kubernetes/client-node/package.json':
      '{"name":"@kubernetes/client-node","main":"index.js"}',
    'node_modules/@kubernetes/client-node/index.js': '',
    'node_modules/listr2/package.json': '{"name":"listr2","main":"index.js"}',
    'node_modules/listr2/index.js': '',
    ...files,
  };
  for (const [file, text] of Object.entries(all)) {
    mkdirSync(path.dirname(path.join(baseDir, file)), { recursive: true });
    writeFileSync(path.join(baseDir, file), text);
  }
  const { tsConfig: _tsConfig, ...options } = rules.options;
  const result = await cruise(['src'], {
    ...options,
    baseDir,
    ruleSet: { forbidden: rules.forbidden },
    validate: true,
  });
  const { violations } = (result.output as ICruiseResult).summary;
  return violations.map((violation) => violation.rule.name);
}

describe('the dependency rules', () => {
  it('have a violation in this test for every rule', () => {
    expect(Object.keys(VIOLATIONS).sort()).toEqual(rules.forbidden.map((rule) => rule.name).sort());
  });

  it.each(Object.entries(VIOLATIONS))('detect a violation of %s', async (name, files) => {
    expect(await brokenRules(files, name)).toContain(name);
  });

  it.each([
    'app',
    'clients',
    'server',
    'cli/a',
    'config/a',
    'runners/a',
    'providers/index',
    'dev/quickstart/a',
  ])('let src/%s.ts enter a feature by its service or routes alone', async (importer) => {
    const up = '../'.repeat(importer.split('/').length - 1) || './';
    const files = {
      [`src/${importer}.ts`]: `import '${up}keys/vault.ts';`,
      'src/keys/vault.ts': '',
    };
    expect(await brokenRules(files, `door-${importer.replaceAll('/', '-')}`)).toContain(
      'features-are-entered-by-service-or-routes',
    );
  });

  it('count every folder of src that is not shared as a feature', async () => {
    const files = { 'src/app.ts': "import './audit/a.ts';", 'src/audit/a.ts': '' };
    expect(await brokenRules(files, 'folder')).toContain('features-are-entered-by-service-or-routes');
  });

  it('report nothing for allowed imports', async () => {
    const files = {
      'src/server.ts': "import './context.ts';",
      'src/context.ts': "import './keys/service.ts'; import './gateway/service.ts';",
      'src/gateway/service.ts': "import '../keys/service.ts';",
      'src/keys/service.ts': "import './key-status-store.ts'; import '../providers/index.ts';",
      'src/keys/key-status-store.ts': "import '../lib/log.ts';",
      'src/providers/index.ts': "import './a.ts';",
      'src/providers/a.ts': "import './provider.ts';",
      'src/providers/provider.ts': '',
      'src/runners/index.ts': "import './ssh/index.ts'; import './kubernetes/index.ts';",
      'src/runners/ssh/index.ts':
        "import '../runner.ts'; import './job.ts'; import '../../lib/ssh/connect.ts';",
      'src/runners/ssh/job.ts':
        "import '../runner.ts'; import '../test-stages.ts'; import '../shell.ts'; import '../marker-stream.ts';",
      'src/runners/test-stages.ts': "import './runner.ts';",
      'src/runners/shell.ts': "import './runner.ts';",
      'src/runners/marker-stream.ts': '',
      'src/runners/kubernetes/index.ts': "await import('@kubernetes/client-node');",
      'src/runners/runner.ts': '',
      'src/lib/ssh/connect.ts': "import 'ssh2';",
      'src/lib/log.ts': "import 'express';",
      'src/app.ts': "import './gateway/routes.ts';",
      'src/gateway/routes.ts': '',
      'src/cli/keys.ts': "import '../keys/admin/move.ts'; import '../keys/service.ts';",
      'src/keys/admin/move.ts': "import '../key-status-store.ts';",
      'src/keys/pool-edit.ts': "import 'node:crypto'; import 'zod'; import './stored-key.ts';",
      'src/keys/stored-key.ts': "import '../lib/errors.ts';",
      'src/lib/errors.ts': '',
      'src/cli/main.ts': "await import('./dev.ts');",
      'src/cli/dev.ts': "import 'listr2';",
    };
    expect(await brokenRules(files, 'clean')).toEqual([]);
  });
});

describe("the limit of a function's own lines", () => {
  const linter = new Linter();
  const config: Linter.Config = {
    plugins: { size: { rules: { 'function-length': functionLength } } },
    rules: { 'size/function-length': ['error', { max: 4 }] },
  };
  const findLines = (text: string) => linter.verify(text, [config]).map(({ line }) => line);
  const nested = ['  const b = () => {', '    c();', '    d();', '  };'];

  it.each([
    ['a function at the limit', ['function a() {', '  b();', '  c();', '}'], []],
    ['a function over the limit', ['function a() {', '  b();', '  c();', '  d();', '}'], [1]],
    ['an arrow function', ['const a = () => {', '  b();', '  c();', '  d();', '};'], [1]],
    ['a method', ['const a = {', '  b() {', '    c();', '    d();', '    e();', '  },', '};'], [2]],
    ['a function that is short without the nested one', ['function a() {', ...nested, '  b();', '}'], []],
    [
      'a function that is long without the nested one',
      ['function a() {', ...nested, '  b();', '  b();', '}'],
      [1],
    ],
    ['a nested function', ['function a() {', ...nested.slice(0, 2), ...nested.slice(1), '}'], [2]],
    ['functions inside nested ones', ['function a() {', '  b(() => {', ...nested, '  });', '}'], []],
  ])('judges %s', (_what, lines, expected) => {
    expect(findLines(lines.join('\n'))).toEqual(expected);
  });
});
