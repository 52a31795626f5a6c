/**
 * The roots on disk: one file each, `*.pem`, with the certificate and, if it is to sign, its private key. One file, so
 * that a root appears and vanishes as a whole.
 */
import { createPrivateKey, type KeyObject, type webcrypto, X509Certificate } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { IdentityError } from '../errors.ts';
import { splitCertificates } from '../pem.ts';

const MAX_FILE_BYTES = 65_536;
const MAX_FILES = 64;
const FOR_OTHERS = 0o077;
const WRITABLE_BY_OTHERS = 0o022;
const PRIVATE_KEY_BLOCK = /-----BEGIN (EC )?PRIVATE KEY-----[^-]+-----END (EC )?PRIVATE KEY-----/;
const CURVES: Readonly<Record<string, string>> = { prime256v1: 'P-256', secp384r1: 'P-384', secp521r1: 'P-521' };

export interface Root {
  readonly file: string;
  /** PEM. */
  readonly certificate: string;
  readonly fingerprint: string;
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** Undefined: it is trusted and does not sign. */
  readonly key: webcrypto.CryptoKey | undefined;
  /** Since when the file is there. A file that was moved or copied here is new, whatever its age. */
  readonly since: number;
}

/**
 * Adds a new root to the directory, which is made if there is none. A CA that uses the directory trusts it at once, and
 * signs with it later.
 *
 * @returns the new file's path
 * @throws IdentityError CA_UNUSABLE
 */
export async function addRoot(directory: string, now = Date.now()): Promise<string> {
  await prepareDirectory(directory);
  const { makeRoot } = await import('./issue.ts');
  const { certificate, key, serialNumber } = await makeRoot(now);
  const date = new Date(now).toISOString().replace(/[-:]|\.\d+/g, '');
  const path = join(directory, `root-${date}-${serialNumber.slice(0, 8)}.pem`);
  const unfinished = `${path}.new`;
  try {
    await writeThrough(unfinished, certificate + key);
    await rename(unfinished, path);
    await using folder = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
    await folder.sync();
  } catch (cause) {
    await rm(unfinished, { force: true });
    throw unusable(`cannot write ${path}; is its file system full or read-only?`, cause);
  }
  return path;
}

async function writeThrough(path: string, text: string): Promise<void> {
  await using file = await open(path, 'wx', 0o600);
  // Whatever the umask says.
  await file.chmod(0o600);
  await file.writeFile(text);
  await file.sync();
}

/**
 * Makes the directory (0700) if need be, and checks that nobody else can put roots into it.
 *
 * @throws IdentityError CA_UNUSABLE
 */
export async function prepareDirectory(directory: string): Promise<void> {
  let found: Awaited<ReturnType<typeof stat>>;
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    found = await stat(directory);
  } catch (cause) {
    throw unusable(`cannot use ${directory} as the CA's directory`, cause);
  }
  if (!isOwn(found.uid) || (found.mode & WRITABLE_BY_OTHERS) !== 0) {
    throw unusable(`${directory} can be written by others; make it this user's own, mode 0700`);
  }
}

/**
 * Every root of the directory, the oldest first.
 *
 * @throws IdentityError CA_UNUSABLE: one of them cannot be used; the directory counts as a whole
 */
export async function readRoots(directory: string): Promise<Root[]> {
  let names: string[];
  try {
    names = (await readdir(directory)).filter((name) => name.endsWith('.pem') && !name.startsWith('.'));
  } catch (cause) {
    throw unusable(`cannot read ${directory}`, cause);
  }
  if (names.length > MAX_FILES) throw unusable(`${directory} holds more than ${MAX_FILES} roots`);
  const roots = await Promise.all(names.map((name) => readRoot(join(directory, name))));
  return roots.sort((one, other) => one.notBefore - other.notBefore || (one.fingerprint < other.fingerprint ? -1 : 1));
}

async function readRoot(path: string): Promise<Root> {
  const { text, since } = await readPrivately(path);
  const [certificate, ...others] = splitCertificates([text]);
  if (certificate === undefined || others.length > 0) throw unusable(`${path} must hold exactly one certificate`);
  const keyText = PRIVATE_KEY_BLOCK.exec(text)?.[0];
  try {
    const parsed = new X509Certificate(certificate);
    if (!parsed.ca || !parsed.checkIssued(parsed) || !parsed.verify(parsed.publicKey)) {
      throw unusable(`${path} holds a certificate that is not a root: it must be a CA's and signed by itself`);
    }
    return {
      file: path,
      certificate,
      fingerprint: parsed.fingerprint256,
      notBefore: parsed.validFromDate.getTime(),
      notAfter: parsed.validToDate.getTime(),
      key: keyText === undefined ? undefined : signingKey(path, createPrivateKey(keyText), parsed),
      since,
    };
  } catch (cause) {
    if (cause instanceof IdentityError) throw cause;
    throw unusable(`${path} holds a certificate or key that is not understood`, cause);
  }
}

function signingKey(path: string, key: KeyObject, certificate: X509Certificate): webcrypto.CryptoKey {
  if (!certificate.checkPrivateKey(key)) throw unusable(`${path} holds a key that is not the certificate's`);
  const namedCurve = CURVES[key.asymmetricKeyDetails?.namedCurve ?? ''];
  if (namedCurve === undefined) throw unusable(`${path} must hold an ECDSA key on P-256, P-384 or P-521`);
  return key.toCryptoKey({ name: 'ECDSA', namedCurve }, false, ['sign']);
}

async function readPrivately(path: string): Promise<{ text: string; since: number }> {
  try {
    // O_NONBLOCK: a named pipe must not hold us up.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = await file.stat();
    if (!found.isFile()) throw unusable(`${path} is not a file`);
    if (!isOwn(found.uid)) throw unusable(`${path} belongs to user ${found.uid}; make it this user's own, mode 0600`);
    if ((found.mode & FOR_OTHERS) !== 0) throw unusable(`${path} can be read by others; make its mode 0600`);
    if (found.size > MAX_FILE_BYTES) throw unusable(`${path} is longer than ${MAX_FILE_BYTES} bytes`);
    return { text: await file.readFile('utf8'), since: found.ctimeMs };
  } catch (cause) {
    if (cause instanceof IdentityError) throw cause;
    throw unusable(`cannot read ${path}`, cause);
  }
}

function isOwn(uid: number): boolean {
  return uid === process.geteuid?.();
}

function unusable(message: string, cause?: unknown): IdentityError {
  return new IdentityError('CA_UNUSABLE', message, { cause });
}
