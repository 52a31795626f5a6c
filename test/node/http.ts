/** One HTTP request from a node or a pod of a lab. */
import type { LabNode, LabPod } from '../lab/index.ts';

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
}

export interface HttpRequest {
  /** Default: GET. */
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Longest wait for an answer: a guard against hanging. */
const HANG_SECONDS = 30;

/** @returns undefined: nobody has answered */
export async function http(
  from: LabNode | LabPod,
  url: string,
  { method = 'GET', headers = {} }: HttpRequest = {},
): Promise<HttpAnswer | undefined> {
  const given = Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]);
  const argv = ['curl', '-s', '-i', '-g', '-m', `${HANG_SECONDS}`, '-X', method, ...given, url];
  const { code, stdout } = await from.exec(argv);
  if (code !== 0) return undefined;
  const [head = '', ...rest] = stdout.split('\r\n\r\n');
  const [first = '', ...lines] = head.split('\r\n');
  const fields = lines.map((line) => [
    line.slice(0, line.indexOf(':')).toLowerCase(),
    line.slice(line.indexOf(':') + 2),
  ]);
  return { status: Number(first.split(' ')[1]), headers: Object.fromEntries(fields), text: rest.join('\r\n\r\n') };
}
