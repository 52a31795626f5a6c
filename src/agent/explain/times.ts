/** `4 s`, `3 minutes`, `2 hours`, `5 days`. */
export function spanText(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 1) return `${Math.round(ms)} ms`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} minutes`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} hours`;
  return `${Math.round(seconds / 86_400)} days`;
}

export function agoText(ms: number): string {
  return `${spanText(ms)} ago`;
}

export function inText(ms: number): string {
  return `in ${spanText(ms)}`;
}
