import { dirname } from 'node:path';
import { messageOf } from '../../mesh/index.ts';
import type { Log } from '../../telemetry/index.ts';
import type { Clock, DirectoryWatch } from '../ports.ts';
import type { ControlGroups, KubeletGroup, PathSignals } from './ports.ts';

interface KubeletWatchDeps {
  readonly signals: Pick<PathSignals, 'setKubelet'>;
  readonly groups: ControlGroups;
  readonly directories: DirectoryWatch;
  readonly clock: Clock;
  readonly log: Log;
}

/** How often the group is looked for, watched or not. */
const LOOK_MS = 500;

/** A service's group holds that service and nothing else, as systemd names them. */
const SERVICE = '.service';
const ROOT_REFUSED =
  "the kubelet's control group is the root of all groups, so every process would count as the kubelet: policy decides about its probes";

type State =
  | { readonly kind: 'new' }
  /** Nobody's probes are let in. */
  | { readonly kind: 'missing' }
  | { readonly kind: 'found'; readonly path: string; readonly group: KubeletGroup }
  /** At the path is the root of all groups, so everybody would be the kubelet: nobody's probes are let in. */
  | { readonly kind: 'refused'; readonly path: string }
  /** The kernel may still have what it was told before. */
  | { readonly kind: 'failed'; readonly error: string };

/**
 * Keeps the kernel informed which control group is the kubelet's: the first of the given paths at which there is one. A
 * restarted service has a new group at the same path, with another id.
 */
export class KubeletWatch {
  readonly #deps: KubeletWatchDeps;
  readonly #paths: readonly string[];
  #state: State = { kind: 'new' };
  #watches: ReadonlyArray<{ close(): void }> = [];
  #ticker: { stop(): void } | undefined;

  /** @param paths none: nobody's probes are let in */
  constructor(deps: KubeletWatchDeps, paths: readonly string[]) {
    this.#deps = deps;
    this.#paths = paths;
  }

  /** Path of the kubelet's group; undefined: there is none, or the kernel could not be told. */
  get path(): string | undefined {
    return this.#state.kind === 'found' ? this.#state.path : undefined;
  }

  start(): void {
    this.look();
    if (this.#paths.length === 0) return;
    const parents = new Set(this.#paths.map((path) => dirname(path)));
    this.#watches = [...parents].map((parent) => this.#deps.directories.watch(parent, () => this.look()));
    this.#ticker = this.#deps.clock.every(LOOK_MS, () => this.look());
  }

  /** The kernel keeps what it has been told. */
  stop(): void {
    this.#ticker?.stop();
    for (const watch of this.#watches) watch.close();
    this.#watches = [];
  }

  look(): void {
    const before = this.#state;
    try {
      const found = this.#find();
      if (found === undefined) {
        if (before.kind !== 'missing') this.#deps.signals.setKubelet(undefined);
        this.#setState({ kind: 'missing' });
      } else if (found.group.level === 0) {
        if (before.kind !== 'refused') this.#deps.signals.setKubelet(undefined);
        this.#setState({ kind: 'refused', path: found.path });
      } else if (before.kind !== 'found' || !isSame(before.group, found.group)) {
        this.#deps.signals.setKubelet(found.group);
        this.#setState({ kind: 'found', ...found });
      }
    } catch (error) {
      this.#setState({ kind: 'failed', error: messageOf(error) });
    }
  }

  #find(): { path: string; group: KubeletGroup } | undefined {
    for (const path of this.#paths) {
      const group = this.#deps.groups.find(path);
      if (group !== undefined) return { path, group };
    }
    return undefined;
  }

  #tellFound({ path, group }: Extract<State, { kind: 'found' }>): void {
    const { log } = this.#deps;
    log.info({ cgroup: path, cgroup_id: String(group.cgroup) }, "the kubelet's probes are let in");
    if (!path.endsWith(SERVICE))
      log.warn(
        { cgroup: path },
        "the kubelet's control group is not that of a service: if it holds anything else, pods say, that is let in past policy, too",
      );
  }

  #setState(state: State): void {
    const before = this.#state;
    this.#state = state;
    const { log } = this.#deps;
    if (state.kind === 'found') this.#tellFound(state);
    else if (state.kind === 'refused' && before.kind !== 'refused') log.error({ cgroup: state.path }, ROOT_REFUSED);
    else if (state.kind === 'failed' && !(before.kind === 'failed' && before.error === state.error))
      log.error({ error: state.error }, "the kubelet's control group cannot be told to the kernel; trying again");
    else if (state.kind === 'missing' && before.kind !== 'missing' && this.#paths.length > 0)
      log.warn({ paths: this.#paths }, "the kubelet's control group is not there: policy decides about its probes");
  }
}

function isSame(a: KubeletGroup, b: KubeletGroup): boolean {
  return a.cgroup === b.cgroup && a.level === b.level;
}
