/** Every code is explained in docs/errors.md. */
export const controlErrorCodes = [
  // manifests
  'MANIFESTS_UNREADABLE',
  // sockets of the nodes
  'SOCKET_UNUSABLE',
] as const;

export type ControlErrorCode = (typeof controlErrorCodes)[number];

export class ControlError extends Error {
  override readonly name = 'ControlError';
  readonly code: ControlErrorCode;

  /** @param message what went wrong, where, and what to do about it */
  constructor(code: ControlErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
