import { isIPv6 } from 'node:net';
import { repairPrivateKey } from './private-key-repair.ts';

/** Members of `connection_config` as they were sent, and messages for users about those that contradict each other. */
export interface CorrectedInput {
  sent: Readonly<Record<string, unknown>>;
  problems: Readonly<Record<string, string>>;
}

/** `ssh://user@host:port`, each part but the host optional. A host with two colons or more is an IPv6 address. */
const HOST_INPUT =
  /^(?:ssh:\/\/)?(?:([^/\s]+)@)?(\[[^\]\s]+\]|[^:@/[\]\s]+|[^:@/[\]\s]*:[^:@/[\]\s]*:[^@/[\]\s]*)(?::(\d{1,5}))?\/?$/i;
/** A host with user and port is shorter. The expression is slow for long texts. */
const MAX_HOST_INPUT_LENGTH = 512;
const MAX_PORT = 65_535;

/** What users call the parts of a host. */
const PART_NAMES = { port: 'port', username: 'user' } as const;
const PASSWORD_IN_HOST = 'contains a password: write the host alone, and the others in username and password';

/**
 * Corrects the members of an SSH server whose meaning is certain: takes port and user out of `host` into their members
 * when these are not sent, and restores the lines of a private key.
 */
export function correctSshInput(input: Readonly<Record<string, unknown>>): CorrectedInput {
  const { private_key: key, host } = input;
  const sent = typeof key === 'string' ? { ...input, private_key: repairPrivateKey(key) } : { ...input };
  const parts = typeof host === 'string' ? parseHostInput(host) : undefined;
  if (parts === undefined) return { sent, problems: {} };
  if (parts.username?.includes(':') === true) return { sent, problems: { host: PASSWORD_IN_HOST } };
  const problems = (['port', 'username'] as const).filter(
    (member) =>
      parts[member] !== undefined &&
      !isEmpty(input[member]) &&
      String(input[member]) !== String(parts[member]),
  );
  if (problems.length > 0) return { sent, problems: { host: createContradiction(problems) } };
  const moved = Object.entries(parts).filter(([, value]) => value !== undefined);
  return { sent: { ...sent, ...Object.fromEntries(moved) }, problems: {} };
}

/** Why a host cannot be an address, for users. Names are checked by the schema. */
export function findHostProblem(host: string): string | undefined {
  const isAddress = isIPv6(host.replace(/^\[(.*)\]$/, '$1'));
  return host.includes(':') && !isAddress
    ? 'A host is a name or an address, e.g. 10.0.0.5 or 2001:db8::1, without a port.'
    : undefined;
}

interface HostParts {
  host: string;
  port?: number;
  username?: string;
}

/** @returns undefined for a text without such parts, which the schema checks. */
function parseHostInput(text: string): HostParts | undefined {
  if (text.length > MAX_HOST_INPUT_LENGTH) return undefined;
  const [, username, host, digits] = HOST_INPUT.exec(text.trim()) ?? [];
  const port = digits === undefined ? undefined : Number(digits);
  if (host === undefined || port === 0 || (port ?? 0) > MAX_PORT) return undefined;
  return { host, ...(port !== undefined && { port }), ...(username !== undefined && { username }) };
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || value === '';
}

function createContradiction(members: readonly ('port' | 'username')[]): string {
  const parts = members.map((member) => PART_NAMES[member]).join(' and ');
  const names = members.map((member) => `\`${member}\``).join(' and ');
  const verb = members.length === 1 ? 'differs' : 'differ';
  return `the ${parts} in host ${verb} from ${names}: write the host alone`;
}
