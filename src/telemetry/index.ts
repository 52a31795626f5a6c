export type { AccessLogDeps, AccessLogFormat, AccessLogMode, AccessLogOptions } from './access-log.ts';
export { ACCESS_LOG_FORMATS, ACCESS_LOG_MODES, AccessLog } from './access-log.ts';
export type { ExpositionFormat, TextFamily } from './exposition.ts';
export { FlowFan } from './flow-fan.ts';
export type { FlowMetricsOptions } from './flow-metrics.ts';
export { FlowMetrics } from './flow-metrics.ts';
export { FlowReader } from './flow-reader.ts';
export type { FlowBatch, FlowEnd, FlowNoun } from './flow-ring.ts';
export { allocateFlowRing } from './flow-ring.ts';
export type { FlowWriterOptions } from './flow-writer.ts';
export { FlowWriter } from './flow-writer.ts';
export type { LineTarget, LineWriterOptions } from './line-writer.ts';
export { LineWriter } from './line-writer.ts';
export type { Log, LogLevel, LogOptions, OpenLog } from './log.ts';
export { LOG_LEVELS, openLog, silentLog } from './log.ts';
export type { LeveledLog } from './log-levels.ts';
export { LogLevels } from './log-levels.ts';
export type { MetricSources, UncapturedReason } from './metric-sources.ts';
export type { Metrics, MetricsOptions } from './metrics.ts';
export { openMetrics } from './metrics.ts';
export type { ListenAddress, ScrapeServerOptions } from './scrape-server.ts';
export { ScrapeServer } from './scrape-server.ts';
export type { LabelOptions, SeriesLabels } from './series.ts';
export { CELLS_OF_A_SLOT, SERIES_CELL, seriesLabels } from './series.ts';
export type { SeriesBookOptions, SeriesSource } from './series-book.ts';
export { SeriesBook } from './series-book.ts';
export { SeriesBudget } from './series-budget.ts';
export type { SeriesReader, SeriesTableOptions } from './series-table.ts';
export { SeriesTable } from './series-table.ts';
export type {
  DashboardSource,
  EdgeDetails,
  ExplainStep,
  Explanation,
  FlowFilter,
  FlowPage,
  FlowView,
  MapEdge,
  MapNode,
  MapView,
  NodeView,
  Overview,
  OverviewSample,
  PodView,
  PolicyView,
} from './views.ts';
