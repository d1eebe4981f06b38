import type { ServerTestDetails, ServerView } from '../../servers/schema.ts';
import type { StatusTone } from '../components/status-badge.tsx';

export type ServerTypeId = ServerView['server_type'];
type TestStatus = ServerView['test_status'];
type StageName = ServerTestDetails['stages'][number]['name'];

export const serverStatusTexts: Record<TestStatus, { label: string; tone: StatusTone }> = {
  untested: { label: 'Not tested', tone: 'neutral' },
  online: { label: 'Online', tone: 'good' },
  offline: { label: 'Offline', tone: 'bad' },
  auth_failed: { label: 'Sign-in refused', tone: 'bad' },
  host_key_unknown: { label: 'Host key not confirmed', tone: 'warning' },
  host_key_changed: { label: 'Host key changed', tone: 'bad' },
  forbidden: { label: 'Not allowed', tone: 'bad' },
  error: { label: 'Error', tone: 'bad' },
};

/** What each stage of a test does, and what helps when it fails. */
export const stageTexts: Record<StageName, { label: string; fix: string }> = {
  policy: {
    label: 'Address allowed',
    fix: 'Use an address that this installation allows, or ask your administrator.',
  },
  tcp: { label: 'Reachable', fix: 'Check address and port, that the machine is on, and its firewall.' },
  host_key: { label: 'Host key', fix: 'Compare the fingerprint with the one on the host, then confirm it.' },
  tls: {
    label: 'Encryption',
    fix: 'Check the certificates: they must belong to this address and be valid now.',
  },
  authentication: {
    label: 'Sign-in',
    fix: 'Check user name and key or password. The public key must be on the host.',
  },
  permission: { label: 'Rights', fix: 'Give the account the rights that the message names.' },
  workspace: { label: 'Folder', fix: 'Make the folder on the host, and let the account write there.' },
  setup: { label: 'Set-up line', fix: 'Correct the line, so that it ends without an error on the host.' },
  echo: { label: 'Runs a program', fix: 'Install the programs that the message names.' },
  kill: { label: 'Ends a program', fix: 'The host must allow ending processes of the account.' },
  cleanup: {
    label: 'Leaves nothing behind',
    fix: 'Install Perl or Python 3 on the host, so that this can be checked.',
  },
};

export const serverTypeTexts: Record<ServerTypeId, { label: string; text: string }> = {
  ssh: { label: 'SSH', text: 'Any machine that you can reach by SSH.' },
  docker: {
    label: 'Docker',
    text: 'Each run in its own container, over one of your SSH servers or with TLS.',
  },
  kubernetes: { label: 'Kubernetes', text: 'Each run in its own pod, in one namespace.' },
  local: { label: 'This machine', text: 'A sandbox without network on the machine of this installation.' },
};

export const serversTexts = {
  description: 'Your own machines, which only you can use. Code runs there.',
  add: 'Add server',
  emptyTitle: 'No execution servers yet',
  emptyText: 'Connect a machine of your own and run code there, with live output.',
  tierMissing: 'Adding, changing and testing servers',
  isDefault: 'Default',
  isInactive: 'Disabled',
  lastTested: 'Last checked',
  lastUsed: 'Last used',
  never: 'Never',
  open: 'Open',
  openOf: (name: string) => `Open ${name}`,
  back: 'All servers',
  test: 'Test',
  testing: 'Testing the connection. This takes up to a minute.',
  run: 'Run code',
  runs: 'Runs on this server',
  edit: 'Edit',
  makeDefault: 'Make default',
  enable: 'Enable',
  disable: 'Disable',
  delete: 'Delete',
  deleteTitle: 'Delete this server?',
  deleteText: (name: string) =>
    `“${name}” and its credentials are removed from here. Nothing changes on the machine itself. Runs of it stay in the history.`,
  tokenRuns: 'Access tokens may run code here',
  tokenRunsHint: 'Off: only you, signed in, can start runs on this server.',
  stages: 'Last test',
  stageStatuses: { ok: 'Passed', failed: 'Failed', skipped: 'Skipped' },
  address: 'Address',
  config: 'Connection',
  hostKey: {
    title: 'Is this your host?',
    changedTitle: 'The host key has changed',
    text: 'Compare this fingerprint with the one that the host shows. On the host, run:',
    command: 'for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $key; done',
    changedText:
      'Either the host was set up again, or another machine answers in its place. Nothing is sent to it until you confirm the new key.',
    stored: 'Confirmed before',
    shown: 'Shown now',
    confirm: 'It is the same: confirm',
    confirmed: 'Host key',
  },
  conflict: {
    title: 'The server was changed meanwhile',
    text: (names: string) =>
      `Changed in another tab or by another program: ${names}. What you typed is still here.`,
    nothing: 'details that this form does not show',
    reload: 'Load the current values',
  },
  form: {
    addTitle: 'Add an execution server',
    editTitle: (name: string) => `Edit ${name}`,
    type: 'Type',
    name: 'Name',
    workspace: 'Folder in which programs start',
    workspaceHint: 'Optional. An absolute path that exists on the host.',
    setup: 'Set-up line',
    setupHint:
      'Optional. Runs first in each run, such as: source ~/venv/bin/activate. It is stored as a secret.',
    isDefault: 'Use it when no server is named',
    save: 'Save',
    saveAndTest: 'Save and test',
    keepSecret: 'Leave empty to keep the stored one.',
    ssh: {
      paste: 'Paste an ssh command or a Host block',
      pasteHint: 'Optional. Fills the fields below, e.g. ssh -p 2222 me@dev.example.com',
      unused: (parts: string) => `Not used here: ${parts}`,
      host: 'Host',
      port: 'Port',
      username: 'User name',
      method: 'Sign in with',
      methods: { key: 'Key', password: 'Password' },
      password: 'Password',
      privateKey: 'Private key',
      chooseFile: 'Choose a key file',
      makePair: 'Make a new pair',
      publicKey: 'Run this line on the host, as the user above',
      passphrase: 'Passphrase of the key',
      jump: 'Over another server of yours',
      noJump: 'Directly',
    },
    docker: {
      via: 'Engine',
      overSsh: (name: string) => `Over SSH: ${name}`,
      tls: 'By TLS',
      address: 'Address',
      addressHint: 'tcp://name:port of an engine that listens with --tlsverify',
      image: 'Image',
      imageHint: 'It needs the interpreters of your code.',
      ca: 'Certificate authority (ca.pem)',
      cert: 'Certificate (cert.pem)',
      key: 'Private key (key.pem)',
      rootWarning:
        'Who can use a Docker engine is root on its machine. Use an engine that holds nothing else.',
    },
    kubernetes: {
      kubeconfig: 'kubeconfig',
      kubeconfigHint:
        'Its current context counts. Files and commands that it names cannot be used: paste with --flatten.',
      namespace: 'Namespace',
      namespaceHint: 'Empty: the one of the context.',
      image: 'Image',
    },
    local: {
      text: 'There is nothing to set. Programs run in a sandbox without network and without your files.',
    },
  },
} as const;
