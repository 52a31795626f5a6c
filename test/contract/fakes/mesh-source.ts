import type { MeshSource } from '../../../src/agent/index.ts';
import { KnownMesh } from '../../../src/control/known-mesh.ts';
import type { MeshUpdate } from '../../../src/mesh/index.ts';
import { FakeMesh } from './mesh.ts';

type Listener = Parameters<MeshSource['follow']>[0];

/** A source in memory: a test says what the mesh is, and whether it can be heard. */
export class FakeMeshSource implements MeshSource {
  readonly #mesh = new FakeMesh();
  readonly #known = new KnownMesh();
  #roots: readonly string[] = ['root 1'];
  #told: readonly string[] = [];
  #listener: Listener | undefined;
  #state: 'there' | 'away' | 'closed' = 'away';
  #isPublished = false;

  follow(listener: Listener): void {
    this.#listener = listener;
    if (this.#isPublished) this.comeBack();
  }

  status(): ReturnType<MeshSource['status']> {
    if (this.#state === 'there') return { connected: true, since: 0 };
    return { connected: false, since: 0, reason: this.#state };
  }

  close(): void {
    this.#state = 'closed';
  }

  publish(update: MeshUpdate): void {
    this.#mesh.apply(update);
    if (this.#state === 'there') this.#tell(update);
    else if (!this.#isPublished && this.#listener !== undefined) this.comeBack();
    this.#isPublished = true;
  }

  rotate(roots: readonly string[]): void {
    this.#roots = roots;
    if (this.#state === 'there') this.#trust();
  }

  goAway(): void {
    this.#state = 'away';
  }

  comeBack(): void {
    if (this.#state === 'closed') return;
    this.#state = 'there';
    this.#trust();
    this.#tell(this.#mesh.snapshot());
  }

  #tell(update: MeshUpdate): void {
    const news = this.#known.take(update);
    if (news !== undefined) this.#listener?.updated(news);
  }

  #trust(): void {
    if (this.#told === this.#roots) return;
    this.#told = this.#roots;
    this.#listener?.trusted(this.#roots);
  }
}
