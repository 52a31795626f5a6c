/**
 * Elements are made here and nowhere else. Texts come from peers (names of workloads, reasons, identities), so everything
 * is set as text, never as markup.
 */

type Attributes = Readonly<Record<string, string | undefined>>;

/** `text` becomes the content, everything else an attribute; undefined ones are left out. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: ReadonlyArray<Node | string>
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined) continue;
    if (name === 'text') made.textContent = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Touches the page only if something is different, so nothing flickers and a selection stays. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element: Element, name: string, value: string | undefined): void {
  if (value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function show(element: HTMLElement, isShown: boolean): void {
  if (element.hidden === isShown) element.hidden = !isShown;
}

/** What the page must have. */
export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * Makes the children be those of `items`, in their order, each made once for its key and updated from then on. What has
 * the focus keeps it.
 */
export function keepChildren<T>(
  parent: Element,
  items: readonly T[],
  keyOf: (item: T) => string,
  make: (item: T) => HTMLElement,
  update: (element: HTMLElement, item: T) => void,
): void {
  const known = new Map<string, HTMLElement>();
  for (const child of parent.children) {
    if (child instanceof HTMLElement && child.dataset.key !== undefined) known.set(child.dataset.key, child);
  }
  const focused = document.activeElement;
  let place = parent.firstElementChild;
  const kept = new Set<Element>();
  for (const item of items) {
    const key = keyOf(item);
    const element = known.get(key) ?? make(item);
    element.dataset.key = key;
    update(element, item);
    kept.add(element);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  if (focused instanceof HTMLElement && focused !== document.activeElement && focused.isConnected)
    focused.focus({ preventScroll: true });
}

/** A short word in a tone: `good`, `warn`, `bad`, `idle`, `info`. */
export function badge(text: string, tone: Tone, title?: string): HTMLElement {
  return el('span', { class: 'badge', 'data-tone': tone, text, title });
}

export type Tone = 'good' | 'warn' | 'bad' | 'idle' | 'info';

export function setBadge(element: HTMLElement, text: string, tone: Tone): void {
  setText(element, text);
  setAttribute(element, 'data-tone', tone);
}

/** What stands where there is nothing yet, and what to do about it. */
export function emptyState(title: string, hint: string): HTMLElement {
  return el('div', { class: 'empty' }, el('strong', { text: title }), el('p', { text: hint }));
}
