/** Numbers as the pages show them: short, and as wide as their neighbours where it matters (the figures are tabular). */

const WHOLE = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const NOTHING = '–';

export function count(value: number): string {
  return value < 100_000 ? WHOLE.format(value) : SHORT.format(value);
}

/** Per second; the unit is said elsewhere. */
export function rate(value: number): string {
  if (value === 0) return '0';
  if (value < 0.01) return '<0.01';
  if (value < 1) return value.toFixed(2);
  if (value < 10) return value.toFixed(1);
  return count(value);
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

export function bytes(value: number): string {
  let unit = 0;
  let left = value;
  while (left >= 1023.5 && unit < UNITS.length - 1) {
    left /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || left >= 100 ? 0 : left >= 10 ? 1 : 2;
  return `${left.toFixed(unit > 0 ? digits : value > 0 && value < 1 ? 1 : 0)} ${UNITS[unit]}`;
}

export function byteRate(value: number): string {
  return value === 0 ? '0' : `${bytes(value)}/s`;
}

export function milliseconds(value: number | undefined): string {
  if (value === undefined) return NOTHING;
  if (value < 10) return `${value.toFixed(2)} ms`;
  if (value < 1_000) return `${value.toFixed(value < 100 ? 1 : 0)} ms`;
  return duration(value);
}

/** A length of time, of milliseconds to days. */
export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1_000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3_600)} h`;
}

export function ago(at: number, now: number): string {
  const passed = now - at;
  return passed < 1_000 ? 'now' : `${shortest(passed)} ago`;
}

export function until(at: number, now: number): string {
  return at <= now ? `expired ${shortest(now - at)} ago` : `in ${shortest(at - now)}`;
}

function shortest(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

export function clockTime(at: number): string {
  const date = new Date(at);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => `${part}`.padStart(2, '0')).join(':');
}

export function percent(share: number): string {
  if (share > 0 && share < 0.001) return '<0.1 %';
  return `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
}

/** `policy-denied` as a person would write it. */
export function words(reason: string): string {
  return reason.replaceAll(/[-_]/g, ' ');
}
