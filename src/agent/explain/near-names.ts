/** Names that are compared at most: a mesh may have very many. */
const MOST_COMPARED = 20_000;
const MOST_TOLD = 3;
const MOST_LETTERS = 80;

/** The nearest of the names, those that somebody may have meant; few. */
export function nearNames(text: string, names: readonly string[]): readonly string[] {
  const wanted = text.slice(0, MOST_LETTERS);
  let most = Math.min(3, Math.max(1, Math.floor(wanted.length / 4)));
  let nearest: string[] = [];
  for (const name of names.slice(0, MOST_COMPARED)) {
    const distance = distanceTo(wanted, name, most);
    if (distance < most) nearest = [];
    if (distance > most) continue;
    most = distance;
    nearest.push(name);
  }
  return [...new Set(nearest)].sort().slice(0, MOST_TOLD);
}

/** How many letters are others; a name without its namespace, or a host's first part, is near if the part is. */
function distanceTo(text: string, name: string, most: number): number {
  const parts = text.includes('/') || text.includes('.') ? [name] : [name, name.split('/').at(-1) ?? name];
  let least = Number.POSITIVE_INFINITY;
  for (const part of parts) {
    if (part.startsWith(text) || part.includes(`/${text}`)) return 0;
    if (Math.abs(part.length - text.length) <= most) least = Math.min(least, lettersBetween(text, part));
  }
  return least;
}

/** Letters that must be put in, taken out or changed, or neighbours that must change places. */
function lettersBetween(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const changed = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const isSwapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swapped = isSwapped ? (before[j - 2] ?? 0) + 1 : changed;
      next.push(Math.min(changed, swapped, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    before = row;
    row = next;
  }
  return row[b.length] ?? 0;
}
