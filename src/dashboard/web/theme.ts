import { byId, el } from './dom.ts';

const CHOICES = ['system', 'light', 'dark'] as const;
type Choice = (typeof CHOICES)[number];

const LABELS: Readonly<Record<Choice, string>> = {
  system: 'Theme: as the system',
  light: 'Theme: light',
  dark: 'Theme: dark',
};
const ICONS: Readonly<Record<Choice, string>> = {
  system: 'M3 4h14v9H3zM7 17h6M10 13v4',
  light:
    'M10 6.500a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7M10 1.500v2M10 16.500v2M1.5 10h2M16.5 10h2M4 4l1.4 1.400M14.6 14.6 16 16M16 4l-1.4 1.400M5.4 14.6 4 16',
  dark: 'M16.5 12A7 7 0 0 1 8 3.500a7 7 0 1 0 8.5 8.5',
};

const listeners = new Set<() => void>();

/** Calls when colours have changed: what is drawn on a canvas must be drawn again. */
export function onTheme(listener: () => void): void {
  listeners.add(listener);
}

const probe = el('span', { hidden: '' });

/** A colour of the style sheet as it is in the theme of the moment, by its name without the dashes. */
export function colour(name: string): string {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** The button that goes through system, light and dark; the choice is kept in this browser. */
export function startTheme(): void {
  const button = byId('theme');
  let choice = CHOICES.find((each) => each === localStorage.getItem('culvert-theme')) ?? 'system';
  const apply = (): void => {
    if (choice === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.setAttribute('aria-label', LABELS[choice]);
    button.title = LABELS[choice];
    button.replaceChildren(icon(ICONS[choice]));
    for (const listener of listeners) listener();
  };
  button.addEventListener('click', () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length] ?? 'system';
    localStorage.setItem('culvert-theme', choice);
    apply();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', apply);
  apply();
}

const SVG = 'http://www.w3.org/2000/svg';

function icon(path: string): SVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 20 20');
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS(SVG, 'path');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}
