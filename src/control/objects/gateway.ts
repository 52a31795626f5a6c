/** Gateway API objects: waypoints. */
import { z } from 'zod';
import { clusterMetadata, list, metadata, optional, port, text, texts } from './fields.ts';
import { isHostname } from './names.ts';

const labelSelector = z.object({
  matchLabels: texts,
  matchExpressions: list(
    z.object({
      key: z.string(),
      operator: z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']),
      values: list(z.string()),
    }),
  ),
});
export type LabelSelector = z.output<typeof labelSelector>;

export const gateway = z.object({
  kind: z.literal('Gateway'),
  metadata,
  spec: z.object({
    gatewayClassName: text,
    listeners: list(
      z.object({
        port,
        protocol: text,
        allowedRoutes: optional(
          z.object({
            namespaces: optional(
              z.object({
                from: optional(z.enum(['All', 'Same', 'Selector', 'None'])),
                selector: optional(labelSelector),
              }),
            ),
          }),
        ),
      }),
    ),
  }),
  status: optional(
    z.object({
      addresses: list(
        z
          .object({ type: text, value: text })
          .refine(({ type, value }) => type !== 'Hostname' || value === '' || isHostname(value), {
            error: 'must be a hostname',
            path: ['value'],
          }),
      ),
    }),
  ),
});
export type Gateway = z.output<typeof gateway>;

export const gatewayClass = z.object({ kind: z.literal('GatewayClass'), metadata: clusterMetadata });
export type GatewayClass = z.output<typeof gatewayClass>;
