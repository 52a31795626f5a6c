/** Every code is explained in docs/errors.md. */
export const dashboardErrorCodes = ['BAD_LISTEN_ADDRESS', 'TOKEN_UNUSABLE'] as const;

export type DashboardErrorCode = (typeof dashboardErrorCodes)[number];

export class DashboardError extends Error {
  override readonly name = 'DashboardError';
  readonly code: DashboardErrorCode;

  /** @param message what went wrong, where, and what to do about it */
  constructor(code: DashboardErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
