import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** A folder of manifests on disk, for one test. */
export class ManifestDirectory {
  readonly path = mkdtempSync(join(tmpdir(), 'culvert-manifests-'));

  constructor(t: { teardown(run: () => void): void }) {
    t.teardown(() => rmSync(this.path, { recursive: true, force: true }));
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** In place, as `cp` does. */
  write(name: string, text: string): string {
    const file = this.file(name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    return file;
  }

  /** By another file that takes its name, as most editors do. */
  replace(name: string, text: string): void {
    renameSync(this.write('.new', text), this.file(name));
  }

  delete(name: string): void {
    rmSync(this.file(name), { recursive: true });
  }
}
