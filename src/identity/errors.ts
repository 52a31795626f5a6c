/** Every code is explained in docs/errors.md. */
export const identityErrorCodes = [
  // why an identity has no certificate
  'CA_UNREACHABLE',
  'REFUSED',
  'BAD_RESPONSE',
  'EXPIRED',
  // what the built-in CA answers or stumbles over
  'BAD_CSR',
  'CA_UNUSABLE',
] as const;

export type IdentityErrorCode = (typeof identityErrorCodes)[number];

export class IdentityError extends Error {
  override readonly name = 'IdentityError';
  readonly code: IdentityErrorCode;

  /** @param message what went wrong, with what, and what to do about it */
  constructor(code: IdentityErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
