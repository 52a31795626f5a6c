export default {
  extensions: ['ts'],
  files: ['test/**/*.test.ts'],
  // A process per test file: the addon changes a thread's network namespace, and a crash must stay in its file.
  workerThreads: false,
  // A guard against hanging, not a limit on a test: no test may depend on it.
  timeout: '10m',
};
