/** Joins the rooms into a control process. */
import process from 'node:process';
import { claimRunDirectory, systemDirectories } from '../agent/index.ts';
import { ControlServer, openManifestSource } from '../control/index.ts';
import { BuiltInCa, systemClock } from '../identity/index.ts';
import { type MeshUpdate, messageOf, ReadModel } from '../mesh/index.ts';
import { type LogLevel, openLog } from '../telemetry/index.ts';
import { type ExitCode, exitCode } from './exit.ts';
import { runService } from './service.ts';

interface ControlCommandOptions {
  /** Folder of Kubernetes YAML. */
  readonly manifests: string;
  /** The CA's directory. */
  readonly ca: string;
  /** Directory of the nodes' sockets. */
  readonly run: string;
  /** Seconds. The longest life of a certificate that is signed. */
  readonly certificateLife: number;
  /** Seconds. How long a new root is trusted before it signs. */
  readonly rootOverlap: number;
  readonly logLevel: LogLevel;
}

export async function runControl(options: ControlCommandOptions): Promise<ExitCode> {
  const log = openLog({ level: options.logLevel });
  try {
    // First: who names the wrong folder must not leave a new CA behind.
    const source = await openManifestSource({ log }, { directory: options.manifests });
    const run = claimRunDirectory(options.run, process.geteuid?.() ?? 0, 'control');
    const mesh = new ReadModel();
    const ca = await BuiltInCa.open(
      options.ca,
      {
        identities: { isOnNode: (node, identity) => mesh.identitiesOn(node).has(identity) },
        clock: systemClock,
        directories: systemDirectories(log),
        log,
      },
      { maxValiditySeconds: options.certificateLife, overlapMs: options.rootOverlap * 1000 },
    );
    const server = new ControlServer({ mesh, signer: ca, clock: systemClock, log }, { directory: run.path });
    const publish = async (update: MeshUpdate): Promise<void> => {
      try {
        await server.publish(update);
      } catch (error) {
        log.error({ error }, 'an update cannot be told');
      }
      if (!update.complete) return;
      const { workloads, services } = mesh.snapshot();
      const counts = { workloads: workloads.length, services: services.length, problems: source.problems().length };
      log.info({ run: run.path, nodes: server.nodes().length, ...counts }, 'ready');
    };
    const control = {
      async start() {
        server.start();
        source.onUpdate((update) => void publish(update));
        // As long as something is wrong with the manifests there is no update, and no node's socket.
        await source.start();
      },
      async stop() {
        log.info({}, 'control process stops');
        source.close();
        server.close();
        ca.close();
        run.release();
      },
    };
    return await runService(control, process);
  } catch (error) {
    log.fatal({ error }, messageOf(error));
    return exitCode.failed;
  }
}
