export type { Log, LogLevel, LogOptions } from './log.ts';
export { LOG_LEVELS, openLog, silentLog } from './log.ts';
export type { MetricSources, Metrics, MetricsOptions } from './metrics.ts';
export { openMetrics } from './metrics.ts';
