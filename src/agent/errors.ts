/** Every code is explained in docs/errors.md. */
export const agentErrorCodes = [
  // a request that is not understood
  'NOT_JSON',
  'BAD_REQUEST',
  'INCOMPLETE',
  'TOO_LARGE',
  'TOO_SLOW',
  // a caller that is not served
  'FORBIDDEN',
  'TOO_MANY_CLIENTS',
  'SHUTTING_DOWN',
  // a request that could not be carried out
  'NETNS_TAKEN',
  'ENROL_FAILED',
  'WITHDRAW_FAILED',
  'NO_MESH',
  'INTERNAL',
  // an agent that cannot start
  'RUN_UNUSABLE',
  'ALREADY_RUNNING',
  'SOCKET_UNUSABLE',
  'STATE_UNREADABLE',
  'STATE_UNWRITABLE',
  // seen by the caller only
  'AGENT_UNREACHABLE',
  'AGENT_SILENT',
  'BAD_REPLY',
] as const;

export type AgentErrorCode = (typeof agentErrorCodes)[number];

export class AgentError extends Error {
  override readonly name = 'AgentError';
  readonly code: AgentErrorCode;

  /** @param message what went wrong, where, and what to do about it */
  constructor(code: AgentErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
