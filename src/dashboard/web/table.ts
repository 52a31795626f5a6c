import { el, keepChildren, setAttribute, setText, show } from './dom.ts';

export interface Column<T> {
  readonly title: string;
  /** What the heading means, where it does not say it. */
  readonly hint?: string;
  /** Numbers stand at the end. */
  readonly isNumber?: boolean;
  /** A sentence: may take several lines. */
  readonly isText?: boolean;
  /** Left out on a phone. */
  readonly isMinor?: boolean;
  /** By what it is sorted; none: it is not. */
  readonly sortBy?: (row: T) => number | string;
  /** Fills or updates the cell. A text is set as such. */
  readonly cell: (row: T, cell: HTMLTableCellElement) => string | undefined;
}

export interface TableOptions<T> {
  readonly label: string;
  readonly columns: ReadonlyArray<Column<T>>;
  readonly keyOf: (row: T) => string;
  /** Column that it is sorted by at first, by its title; none: as given. */
  readonly sortedBy?: string;
  readonly isDescending?: boolean;
  /** What a row does when it is clicked or its first cell's button pressed. */
  readonly open?: (row: T) => void;
  readonly empty: HTMLElement;
  /** More rows than this are shown on request. Default: 200. */
  readonly most?: number;
}

/** A table whose rows are kept: values change in place, order only when nobody points at it. */
export class Table<T> {
  readonly element = el('div', { class: 'table-box' });
  readonly #options: TableOptions<T>;
  readonly #body = el('tbody');
  readonly #table: HTMLTableElement;
  readonly #more = el('button', { type: 'button', class: 'more' });
  readonly #headings: HTMLTableCellElement[] = [];
  #sortedBy: Column<T> | undefined;
  #isDescending: boolean;
  #rows: readonly T[] = [];
  #order: readonly string[] = [];
  #isAllShown = false;
  #selected: string | undefined;

  constructor(options: TableOptions<T>) {
    this.#options = options;
    this.#sortedBy = options.columns.find(({ title }) => title === options.sortedBy);
    this.#isDescending = options.isDescending ?? false;
    const head = el('tr', {}, ...options.columns.map((column) => this.#heading(column)));
    this.#table = el('table', { 'aria-label': options.label }, el('thead', {}, head), this.#body);
    this.#more.addEventListener('click', () => {
      this.#isAllShown = true;
      this.#draw(true);
    });
    this.element.append(el('div', { class: 'table-scroll' }, this.#table), this.#more, options.empty);
    this.#mark();
  }

  set(rows: readonly T[]): void {
    this.#rows = rows;
    this.#draw(false);
  }

  /** Marks one row; undefined: none. */
  select(key: string | undefined): void {
    this.#selected = key;
    for (const row of this.#body.children)
      if (row instanceof HTMLElement) setAttribute(row, 'aria-current', row.dataset.key === key ? 'true' : undefined);
  }

  #draw(isOrderNew: boolean): void {
    const { keyOf, most = 200, columns, empty } = this.#options;
    const rows = this.#arranged(isOrderNew);
    const shown = this.#isAllShown ? rows : rows.slice(0, most);
    this.#order = shown.map(keyOf);
    keepChildren(
      this.#body,
      shown,
      keyOf,
      (row) => this.#makeRow(row),
      (element, row) => {
        ROWS.set(element, row);
        columns.forEach((column, at) => {
          const cell = element.children[at];
          if (!(cell instanceof HTMLTableCellElement)) return;
          const text = column.cell(row, cell);
          if (text !== undefined) setText(cell.querySelector('button.open') ?? cell, text);
        });
      },
    );
    this.select(this.#selected);
    show(this.#table, rows.length > 0);
    show(empty, rows.length === 0);
    show(this.#more, shown.length < rows.length);
    setText(this.#more, `Show all ${rows.length}`);
  }

  /** While somebody points at the table or is in it with the keyboard, rows stay where they are. */
  #arranged(isOrderNew: boolean): readonly T[] {
    const { keyOf } = this.#options;
    const sortBy = this.#sortedBy?.sortBy;
    if (sortBy === undefined) return this.#rows;
    const sorted = this.#rows.map((row) => ({ row, by: sortBy(row) }));
    sorted.sort((a, b) => compare(a.by, b.by) * (this.#isDescending ? -1 : 1));
    const rows = sorted.map(({ row }) => row);
    const isHeld = this.#body.matches(':hover') || this.#body.contains(document.activeElement);
    if (isOrderNew || !isHeld || this.#order.length === 0) return rows;
    const byKey = new Map(rows.map((row) => [keyOf(row), row]));
    const held = this.#order.flatMap((key) => {
      const row = byKey.get(key);
      byKey.delete(key);
      return row === undefined ? [] : [row];
    });
    return [...held, ...byKey.values()];
  }

  #makeRow(row: T): HTMLTableRowElement {
    const { columns, open } = this.#options;
    const cells = columns.map((column) => el('td', { class: classOf(column), 'data-title': column.title }));
    const made = el('tr', open === undefined ? {} : { class: 'opens' }, ...cells);
    ROWS.set(made, row);
    if (open === undefined) return made;
    cells[0]?.append(el('button', { type: 'button', class: 'open' }));
    made.addEventListener('click', (event) => {
      const { target } = event;
      if (target instanceof Element && target.closest('button:not(.open), a') !== null) return;
      if (!getSelection()?.isCollapsed) return;
      open(ROWS.get(made) as T);
    });
    return made;
  }

  #heading(column: Column<T>): HTMLTableCellElement {
    const heading = el('th', { scope: 'col', class: classOf(column), title: column.hint });
    this.#headings.push(heading);
    if (column.sortBy === undefined) {
      heading.textContent = column.title;
      return heading;
    }
    const button = el('button', { type: 'button', class: 'sort', text: column.title });
    button.addEventListener('click', () => {
      this.#isDescending = this.#sortedBy === column ? !this.#isDescending : column.isNumber === true;
      this.#sortedBy = column;
      this.#mark();
      this.#draw(true);
    });
    heading.append(button);
    return heading;
  }

  #mark(): void {
    this.#options.columns.forEach((column, at) => {
      const heading = this.#headings[at];
      if (heading === undefined || column.sortBy === undefined) return;
      const state = this.#isDescending ? 'descending' : 'ascending';
      setAttribute(heading, 'aria-sort', column === this.#sortedBy ? state : 'none');
    });
  }
}

/** The row that an element shows now. */
const ROWS = new WeakMap<Element, unknown>();

function classOf<T>(column: Column<T>): string | undefined {
  const names = [
    ...(column.isNumber === true ? ['number'] : []),
    ...(column.isMinor === true ? ['minor'] : []),
    ...(column.isText === true ? ['text'] : []),
  ];
  return names.length === 0 ? undefined : names.join(' ');
}

function compare(a: number | string, b: number | string): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return `${a}`.localeCompare(`${b}`, 'en', { numeric: true });
}
