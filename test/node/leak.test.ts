import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';

/** CULVERT_SOAK=1: enough to notice what is lost now and then. */
const cycles = process.env.CULVERT_SOAK === '1' ? 50 : 2;
const script = fileURLToPath(new URL('../../native/addon/test/leak.sh', import.meta.url));

test.serial('enrolments, and all else that the addon owns, leave no memory and no descriptor behind', async (t) => {
  const { stdout } = await promisify(execFile)(script, [String(cycles)]);
  t.regex(stdout, new RegExp(`^leak: ${cycles} cycles .* clean$`, 'm'));
});
