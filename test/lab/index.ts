/**
 * The network-namespace lab: nodes, pods and links on one kernel, for tests, benches, the demo, and by hand.
 *
 * ```ts
 * await using lab = await Lab.create(t.title);          // waits its turn; everything is gone at the end of the block
 * const n1 = await lab.node('n1');                      // namespace, cgroup subtree, bpffs and run directories
 * const n2 = await lab.node('n2');
 * await lab.link(n1, n2, { delayMs: 5, lossPercent: 1, rateMbit: 100 }); // each way; all optional
 * const client = await n1.pod('client');                // ipv4 and ipv6 unless { ipv4: false } or { ipv6: false }
 * const server = await n2.pod('server', { namespace: 'shop', serviceAccount: 'cart' });
 *
 * const echo = server.run(apps.echo({ port: 8080, mode: 'tell' }));
 * await echo.json({ event: 'listening' });              // the next line of output that is JSON with these fields
 * const { stdout, stderr, code } = await client.exec(apps.pythonConnect({ to: server.ipv4, port: 8080 }));
 *
 * const agent = await n1.agent({ workers: 2 });         // `culvert agent`, ready; agent.kill() is kill -9, agent.stop() SIGTERM
 * await agent.enrol(client);                            // exclusions etc. as second argument
 *
 * const control = await lab.control({                   // `culvert control`, ready
 *   manifests: { 'pods.yaml': [podManifest(client), podManifest(server)] },
 * });
 * const meshed = await n2.agent({ control });           // with --node and --control: tunnels, has identities
 * control.write('pods.yaml', podManifest(client));      // an edit; takes effect at once
 *
 * const capture = await lab.capture(client);            // or a link, or (client, 'lo')
 * (await capture.stop()).contains('secret');            // across packets, per TCP stream
 * const before = await snapshot(n1);                    // programs, links, maps, pins, rules, listeners
 * ```
 *
 * The whole face:
 *
 * - `Lab.create(title?, { lockWaitMs?, shared? })`, `lab.node(name)`, `lab.link(a, b, { delayMs?, lossPercent?, rateMbit? })`,
 *   `lab.capture(link | pod | node, interface?)`, `lab.control({ manifests? | directory? })`, `lab.dispose()`; `lab.id`, `.nodes`, `.links`, `.cgroup`, `.bpffs`, `.directory`.
 *   `furnish(lab, steps)` goes on with a lab, and removes it if that fails.
 * - node: `.pod(name, { ipv4?, ipv6?, namespace?, serviceAccount?, addressesOf? })`, `.run(argv, options?)`, `.exec(argv, options?)` (host
 *   network), `.agent(options?)`, `.sysctl(values)`; `.netns`, `.cgroup`, `.bpffs`, `.runDirectory`, `.ipv4`, `.ipv6`, `.podCidrs`, `.pods`.
 * - pod: `.run(argv, options?)`, `.exec(argv, options?)`, `.request(changes?)` (as `enrol` takes it), `.sysctl(values)`, `.delete()`;
 *   `.netns`, `.cgroup`, `.addresses`, `.ipv4`, `.ipv6`, `.uid`, `.identity`, `.name`, `.node`.
 * - run and exec options: `uid`, `restricted` (default true in pods: neither CAP_NET_ADMIN nor CAP_NET_RAW), `dropCapabilities`,
 *   `env`, `stdin`, `cwd`, `maxFiles`, `onLine`. `exec` gives `{ code, signal, stdout, stderr }` and does not throw for a bad code.
 * - process: `.line(regexp, deadlineMs?)` and `.json(fields?, deadlineMs?)` wait for the next line that matches, behind the one
 *   found before; `.told(fields, { since?, deadlineMs? })` for a line at any time since the start, which may be there already;
 *   `.exit`, `.exited`, `.kill(signal?)`, `.signal(signal)`, `.write(data)`, `.end()`, `.pid`, `.lines`, `.records`, `.stdout`, `.stderr`.
 * - link: `.down()`, `.up()`, `.lose(percent)` (100: a black hole); `.nodes`, `.interfaces`.
 * - capture: `.stop()` gives packets with `.contains(bytes)`, `.payloadBytes(filter?)`, `.filter(f)`, `.between(a, b)`,
 *   `.streams()`, `.packets`.
 * - agent: `.enrol(pod, changes?)`, `.withdraw(pod)`, `.status()`, `.request(object)`, `.raw(bytes)`,
 *   `.log(fields)` (the next line), `.told(fields)` (any line since its start), `.issued(pod)` (it has the certificate),
 *   `.kill(signal?)`, `.stop()`, `.process`, `.socket`.
 * - agent options: `workers`, `control`, `args`, `logLevel`, `maxFiles`, `env`, `nodeArgs`, `readyMs`, `onLine`.
 * - control: `.start()`, `.stop()`, `.kill(signal?)`, `.restart()`, `.write(file, manifests)`, `.remove(file)`, `.socket(node)`,
 *   `.log(fields)`, `.process`, `.manifests`, `.ca`, `.runDirectory`.
 * - `podManifest(pod, options?)`, `serviceManifest(name, options)`, `endpointSliceManifest(name, options)`,
 *   `nodeManifest(node, locality?)`, `authorizationPolicyManifest(name, options?)`, `peerAuthenticationManifest(name, options?)`:
 *   Kubernetes objects.
 * - `apps`: `echo`, `pythonEcho`, `connect`, `pythonConnect`, `hold`, `peer`, `transfer`, `endpoint`, `h2Client`, `h2Server`,
 *   `h2Hostile`; compiled, so async: `uringConnect`, `load`, `answer`, `web`, `probe`.
 *
 * How it cleans up: at the end of the block; at the process's exit, SIGINT, SIGTERM and SIGHUP; and, for an owner killed
 * by SIGKILL, whatever it started dies with it and the next `Lab.create` (or `sweep()`) removes the rest.
 *
 * Run test files in processes (AVA's `workerThreads: false`): signals do not reach worker threads.
 */
export type { AgentOptions, LabAgent } from './agent.ts';
export * as apps from './apps/index.ts';
export type { Capture, Captured, Packet, PacketFilter } from './capture.ts';
export type { ControlOptions, LabControl, ManifestFile } from './control.ts';
export { furnish, Lab, type LabOptions } from './lab.ts';
export type { LabLink, LinkOptions } from './link.ts';
export {
  type AuthorizationPolicyOptions,
  authorizationPolicyManifest,
  endpointSliceManifest,
  type Manifest,
  nodeManifest,
  type PeerAuthenticationOptions,
  type PodManifestOptions,
  peerAuthenticationManifest,
  podManifest,
  type ServiceManifestOptions,
  serviceManifest,
} from './manifests.ts';
export { LabError, type LabId } from './names.ts';
export type { LabNode } from './node.ts';
export type { LabPod, PodOptions, PodRequest } from './pod.ts';
export type { Exit, LabProcess, Outcome, RunOptions, ToldOptions } from './process.ts';
export { existingLabs, sweep } from './remnants.ts';
export { type Snapshot, snapshot } from './snapshot.ts';
