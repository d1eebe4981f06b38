/**
 * What taking off a passphrase costs. The key itself says how long that is to take, and OpenSSL cannot be
 * interrupted in it: a key is refused before it is tried.
 */
import {
  derContent,
  DER,
  DerError,
  derChildren,
  readDer,
  derSmallInteger,
  type DerValue,
} from '../crypto/der.ts';

/** About a second. OpenSSL writes 2 048, others up to 600 000 (OWASP, "Password Storage"). */
const MAX_ITERATIONS = 1_000_000;
/** N times r times p: 8 times what OpenSSL writes. */
const MAX_SCRYPT_COST = 2 ** 20;
/** OpenSSH writes 24. */
const MAX_BCRYPT_ROUNDS = 1_024;

const DERIVATION_TOO_SLOW =
  "The private key's passphrase takes too long to be tried: set it anew with fewer rounds, by " +
  '"ssh-keygen -p -a 24".';
const UNSUPPORTED_ENCRYPTION =
  'The private key is encrypted in a way that is not read here: encrypt it by "openssl pkcs8 -topk8", or by ' +
  '"ssh-keygen -p".';

/** Content of the object identifiers, in hexadecimal (RFC 8018, RFC 7914). */
const PBES2 = '2a864886f70d01050d';
const PBKDF2 = '2a864886f70d01050c';
const SCRYPT = '2b06010401da47040b';

/** Why the passphrase of a key in OpenSSH's form is not tried, for people. */
export function findBcryptProblem(rounds: number): string | undefined {
  return rounds > MAX_BCRYPT_ROUNDS ? DERIVATION_TOO_SLOW : undefined;
}

/** Why the passphrase of an encrypted PKCS#8 key is not tried, for people. @param bytes DER */
export function findPkcs8DerivationProblem(bytes: Buffer): string | undefined {
  try {
    const [algorithm] = derChildren(readDer(bytes));
    const [scheme, parameters] = derChildren(algorithm);
    if (toOidHex(scheme) !== PBES2) return UNSUPPORTED_ENCRYPTION;
    const [derivation] = derChildren(parameters);
    const [name, numbers] = derChildren(derivation);
    return findDerivationProblem(toOidHex(name), derChildren(numbers));
  } catch (error) {
    if (error instanceof DerError) return UNSUPPORTED_ENCRYPTION;
    throw error;
  }
}

/** @param numbers the first is the salt. */
function findDerivationProblem(name: string, [, ...numbers]: readonly DerValue[]): string | undefined {
  if (name === PBKDF2) return derSmallInteger(numbers[0]) > MAX_ITERATIONS ? DERIVATION_TOO_SLOW : undefined;
  if (name !== SCRYPT) return UNSUPPORTED_ENCRYPTION;
  const [n = 0, r = 0, p = 0] = numbers.slice(0, 3).map(derSmallInteger);
  return n * r * p > MAX_SCRYPT_COST ? DERIVATION_TOO_SLOW : undefined;
}

function toOidHex(value: DerValue | undefined): string {
  return derContent(value, DER.oid).toString('hex');
}
