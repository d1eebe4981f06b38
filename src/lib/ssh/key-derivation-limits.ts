/**
 * Limits of the key derivation of encrypted private keys. The key file sets its cost, and OpenSSL cannot be
 * interrupted, so that a key over the limit is refused before it is decrypted.
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

/** About a second. OpenSSL uses 2 048, other tools up to 600 000 (OWASP, "Password Storage"). */
const MAX_ITERATIONS = 1_000_000;
/** N times r times p: 8 times the default of OpenSSL. */
const MAX_SCRYPT_COST = 2 ** 20;
/** More than a second. The default of OpenSSH is 24. */
const MAX_BCRYPT_ROUNDS = 128;

const DERIVATION_TOO_SLOW =
  'Decrypting the private key takes too long. Set its passphrase again with fewer rounds, with ' +
  '"ssh-keygen -p -a 24".';
const TOO_MANY_ROUNDS =
  `The passphrase of the private key has more than ${MAX_BCRYPT_ROUNDS} rounds, which take too long. Set it again with fewer, with ` +
  '"ssh-keygen -p -a 24".';
const UNSUPPORTED_ENCRYPTION =
  'The encryption of the private key is not supported. Encrypt it again with "openssl pkcs8 -topk8" or ' +
  '"ssh-keygen -p".';

/** Contents of object identifiers, in hexadecimal (RFC 8018, RFC 7914). */
const PBES2 = '2a864886f70d01050d';
const PBKDF2 = '2a864886f70d01050c';
const SCRYPT = '2b06010401da47040b';

/** Why an encrypted key in OpenSSH format is neither stored nor decrypted, for users. */
export function findBcryptProblem(rounds: number): string | undefined {
  return rounds > MAX_BCRYPT_ROUNDS ? TOO_MANY_ROUNDS : undefined;
}

/** Why an encrypted PKCS#8 key is not decrypted, for users. @param bytes DER */
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

/** @param numbers parameters of the key derivation; the first is the salt. */
function findDerivationProblem(name: string, [, ...numbers]: readonly DerValue[]): string | undefined {
  if (name === PBKDF2) return derSmallInteger(numbers[0]) > MAX_ITERATIONS ? DERIVATION_TOO_SLOW : undefined;
  if (name !== SCRYPT) return UNSUPPORTED_ENCRYPTION;
  const [n = 0, r = 0, p = 0] = numbers.slice(0, 3).map(derSmallInteger);
  return n * r * p > MAX_SCRYPT_COST ? DERIVATION_TOO_SLOW : undefined;
}

function toOidHex(value: DerValue | undefined): string {
  return derContent(value, DER.oid).toString('hex');
}
