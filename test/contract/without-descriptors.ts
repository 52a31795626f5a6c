import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';

function limitDescriptors(soft: string | number): void {
  execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${soft}:`]);
}

/** What `use` says while this process may open no more than `left` descriptors. */
export function withoutDescriptors<T>(left: number, use: () => T): T {
  const before = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? '1024';
  const held: number[] = [];
  limitDescriptors(Math.max(...readdirSync('/proc/self/fd').map(Number)) + 16);
  try {
    try {
      for (;;) held.push(openSync('/dev/null', 'r'));
    } catch {
      // That was the last one.
    }
    for (const fd of held.splice(0, left)) closeSync(fd);
    return use();
  } finally {
    for (const fd of held) closeSync(fd);
    limitDescriptors(before);
  }
}
