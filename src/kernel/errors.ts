/** Every way in which the kernel's side can fail. docs/errors.md tells what to do about each. */
export const kernelErrorCodes = [
  'NOT_A_NETNS',
  'NETNS_IS_HOST',
  'PORT_TAKEN',
  'TOO_MANY_PODS',
  'TOO_MANY_EXCLUSIONS',
  'NO_CGROUP',
  'NO_BPFFS',
  'NO_PROGRAMS',
  'SCHEMA_MISMATCH',
  'HOOK_TAKEN',
  'NOT_PREPARED',
  'KERNEL_REFUSED',
] as const;

export type KernelErrorCode = (typeof kernelErrorCodes)[number];

/** An error of the kernel room. The message says what, where and what to do; `cause` holds the system's own error. */
export class KernelError extends Error {
  override readonly name = 'KernelError';
  readonly code: KernelErrorCode;

  constructor(code: KernelErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

/** The errno name of a system error (`ENOENT`), or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
