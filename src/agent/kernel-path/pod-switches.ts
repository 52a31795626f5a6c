import type { NetnsCookie, Workload } from '../../mesh/index.ts';
import type { Openness } from '../../policy/index.ts';
import type { PathPod, PathPods } from './pods.ts';
import type { OpenPorts, PodPaths } from './ports.ts';
import { viewOf } from './services.ts';

interface PodSwitchesDeps {
  readonly table: PodPaths;
  readonly pods: Pick<PathPods, 'values'>;
}

/** What the kernel has been told of a pod. */
interface Told {
  readonly isOn: boolean;
  readonly openness: Openness;
}

const SHUT: Openness = { kind: 'depends' };
const NOTHING: Told = { isOn: false, openness: SHUT };

/** Which pods take part in the kernel path, and which of their ports are open to anybody. */
export class PodSwitches {
  readonly #deps: PodSwitchesDeps;
  readonly #told = new Map<NetnsCookie, Told>();

  constructor(deps: PodSwitchesDeps) {
    this.#deps = deps;
  }

  /** The workload that services are seen from: that of the first pod which is known. */
  vantage(): Workload | undefined {
    for (const { state, workload } of this.#deps.pods.values())
      if (state === 'enrolled' && workload !== undefined) return workload;
    return undefined;
  }

  /** Tells the kernel what has changed. `isOn` false: none takes part. */
  update(isOn: boolean): void {
    const view = isOn ? viewOf(this.vantage()) : undefined;
    for (const pod of this.#deps.pods.values()) this.#tell(pod, wantedFor(pod, view));
  }

  /** The kernel may have forgotten what it was told of the pod. */
  forget(cookie: NetnsCookie): void {
    this.#told.delete(cookie);
  }

  #tell({ cookie, state }: PathPod, wanted: Told): void {
    const told = this.#told.get(cookie);
    // Nobody is captured there any more: it is told that once, at most.
    if (state === 'left' && told === undefined) return;
    const { table } = this.#deps;
    // Written down only after the kernel has it, so that a failed call is repeated.
    if (told === undefined || !isSame(told.openness, wanted.openness))
      table.setOpenPorts(cookie, openPortsOf(wanted.openness));
    if (told?.isOn !== wanted.isOn) table.setKernelPath(cookie, wanted.isOn);
    if (state === 'left') this.#told.delete(cookie);
    else this.#told.set(cookie, wanted);
  }
}

/** A pod that sees services from elsewhere than the others must not be given backends that are chosen for them. */
function wantedFor({ state, workload, rules }: PathPod, view: string | undefined): Told {
  if (state !== 'enrolled' || workload === undefined || view === undefined) return NOTHING;
  return { isOn: viewOf(workload) === view, openness: workload.protocol === 'hbone' ? rules.openness() : SHUT };
}

/** Undefined: none is. */
function openPortsOf(openness: Openness): OpenPorts | undefined {
  if (openness.kind === 'depends') return undefined;
  return openness.others || [...openness.ports.values()].includes(true) ? openness : undefined;
}

function isSame(a: Openness, b: Openness): boolean {
  if (a.kind === 'depends' || b.kind === 'depends') return a.kind === b.kind;
  if (a === b) return true;
  if (a.others !== b.others || a.ports.size !== b.ports.size) return false;
  for (const [port, isOpen] of a.ports) if (b.ports.get(port) !== isOpen) return false;
  return true;
}
