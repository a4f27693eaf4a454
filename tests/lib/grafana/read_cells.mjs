// Reads a dashboard and the answers to its queries (src/payload.ts) as JSON from standard input,
// and prints what a person reads in each panel. Numbers are grouped as LC_ALL says.
import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';
import { compileFunction } from 'node:vm';

import { bundle } from './bundle.mjs';

const { js } = await bundle('src/main.ts', {
  external: ['jsdom'],
  format: 'cjs',
  loader: { '.css': 'empty' },
  platform: 'node',
});
const module = { exports: {} };
const parameters = ['module', 'exports', 'require'];
compileFunction(js, parameters, { filename: 'src/main.ts, bundled' })(
  module,
  module.exports,
  createRequire(import.meta.url)
);
const payload = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(await module.exports.readCells(payload)));
