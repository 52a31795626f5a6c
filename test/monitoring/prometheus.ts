/** Prometheus itself, on a node of the lab, with the configuration and rules that are shipped. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LabNode } from '../lab/index.ts';
import { discovered, type Labels, withTargets } from './configuration.ts';
import { ruleFiles } from './files.ts';

const url = 'http://127.0.0.1:9090';
/** Longest wait for it to be ready: a guard against hanging. */
const readySeconds = 60;
/** How often it scrapes and evaluates the rules. */
const interval = '2s';

/** One series that a query gave, with its latest value. */
export interface Sample {
  readonly labels: Labels;
  /** May be NaN. */
  readonly value: number;
}

/** An answer of its HTTP API. */
interface Answer<Data> {
  readonly status: string;
  readonly error?: string;
  readonly data: Data;
}

interface Vector {
  readonly resultType: string;
  readonly result: ReadonlyArray<{ readonly metric: Labels; readonly value: readonly [at: number, value: string] }>;
}

export interface RuleState {
  readonly name: string;
  readonly health: string;
  readonly lastError?: string;
}

export class Prometheus {
  readonly #node: LabNode;

  private constructor(node: LabNode) {
    this.#node = node;
  }

  /**
   * Starts it in the node's own network namespace, where it ends with the lab.
   *
   * @param scraped the nodes whose agents it scrapes
   */
  static async start(node: LabNode, scraped: readonly LabNode[]): Promise<Prometheus> {
    const folder = join(node.lab.directory, 'prometheus');
    mkdirSync(folder);
    const file = join(folder, 'prometheus.json');
    const configuration = withTargets(scraped.map(({ ipv4, name }) => discovered(ipv4, name)));
    const global = { scrape_interval: interval, scrape_timeout: interval, evaluation_interval: interval };
    writeFileSync(file, JSON.stringify({ ...configuration, global, rule_files: ruleFiles }));
    node.run([
      ...['prometheus', `--config.file=${file}`, `--storage.tsdb.path=${join(folder, 'data')}`],
      ...[`--web.listen-address=${new URL(url).host}`, '--log.level=warn'],
    ]);
    const prometheus = new Prometheus(node);
    const wait = ['--retry', `${readySeconds}`, '--retry-delay', '1', '--retry-all-errors'];
    const { code, stderr } = await node.exec(['curl', '--silent', '--show-error', '--fail', ...wait, `${url}/-/ready`]);
    if (code !== 0) throw new Error(`Prometheus is not ready: ${stderr}`);
    return prometheus;
  }

  /** Asks it all of these, as they are now. Throws if it refuses one. */
  async ask(queries: readonly string[]): Promise<Sample[][]> {
    const answers = await this.#get<Vector>(queries.map((query) => ({ path: 'query', data: { query } })));
    return answers.map(({ result }) =>
      result.map(({ metric, value: [, value] }) => ({ labels: metric, value: Number(value) })),
    );
  }

  /** What has become of the rules. */
  async rules(): Promise<RuleState[]> {
    const [answer] = await this.#get<{ groups: ReadonlyArray<{ rules: readonly RuleState[] }> }>([{ path: 'rules' }]);
    return answer?.groups.flatMap(({ rules }) => rules) ?? [];
  }

  /** All requests go by one curl in its network namespace; each answer is a line. */
  async #get<Data>(requests: ReadonlyArray<{ path: string; data?: Labels }>): Promise<Data[]> {
    const stdin = requests
      .map(({ path, data = {} }) =>
        [
          `url = "${url}/api/v1/${path}"`,
          'silent',
          'write-out = "\\n"',
          ...Object.entries(data).map(([name, value]) => `data-urlencode = ${JSON.stringify(`${name}=${value}`)}`),
        ].join('\n'),
      )
      .join('\nnext\n');
    const { code, stdout, stderr } = await this.#node.exec(['curl', '--config', '-'], { stdin });
    if (code !== 0) throw new Error(`Prometheus does not answer: ${stderr}`);
    const answers = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Answer<Data>);
    return answers.map(({ status, error, data }, at) => {
      if (status !== 'success') throw new Error(`${error}: ${JSON.stringify(requests[at])}`);
      return data;
    });
  }
}
