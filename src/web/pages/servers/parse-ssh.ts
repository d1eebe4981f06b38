/** What the SSH form can use of a pasted text. */
export interface SshTarget {
  host?: string;
  port?: number;
  username?: string;
  /** Parts that this form cannot use, such as options. */
  unused: string[];
}

const HOST_FIELDS: Record<string, (target: SshTarget, value: string) => void> = {
  hostname: (target, value) => (target.host = value),
  user: (target, value) => (target.username = value),
  port: (target, value) => (target.port = Number(value)),
};
/** Options of ssh(1) that take a value. */
const OPTIONS_WITH_VALUE = /^-[BbcDEeFIiJLlmOoPpQRSWw]$/;

/** Reads an `ssh` command or a `Host` block of an SSH configuration. @returns undefined for anything else. */
export function parseSshTarget(text: string): SshTarget | undefined {
  const trimmed = text.trim();
  if (/^ssh\s/.test(trimmed)) return parseCommand(trimmed.split(/\s+/).slice(1));
  if (/^host\s/i.test(trimmed)) return parseHostBlock(trimmed);
  return undefined;
}

function parseHostBlock(text: string): SshTarget {
  const target: SshTarget = { unused: [] };
  for (const line of text.split('\n').map((one) => one.trim())) {
    const [, name = '', value = ''] = /^(\w+)[\s=]+(.+)$/.exec(line) ?? [];
    const field = name.toLowerCase();
    // The alias is the host, unless the block names another one.
    if (field === 'host') target.host ??= value.split(/\s+/)[0] ?? '';
    else if (HOST_FIELDS[field] !== undefined) HOST_FIELDS[field](target, value);
    else if (line !== '' && !line.startsWith('#')) target.unused.push(line);
  }
  return target;
}

function parseCommand(words: string[]): SshTarget {
  const target: SshTarget = { unused: [] };
  let destination: string | undefined;
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (destination !== undefined) target.unused.push(word);
    else if (word === '-p') target.port = Number(words.shift());
    else if (word === '-l') target.username = words.shift() ?? '';
    else if (OPTIONS_WITH_VALUE.test(word)) target.unused.push(`${word} ${words.shift() ?? ''}`);
    else if (word.startsWith('-')) target.unused.push(word);
    else destination = word;
  }
  const [, user, host, port] =
    /^(?:ssh:\/\/)?(?:([^@]+)@)?([^:/]+|\[[^\]]+\])(?::(\d+))?\/?$/.exec(destination ?? '') ?? [];
  if (user !== undefined) target.username = user;
  if (host !== undefined) target.host = host;
  if (port !== undefined) target.port = Number(port);
  return target;
}
