// Sources to one text of JavaScript that runs. Three files of the packages are taken by their path:
// Grafana uses them, and its packages do not export them.
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const of = (path) => here(`node_modules/@grafana/${path}`);

const alias = {
  '@grafana/runtime': here('src/runtime.ts'),
  'grafana-plot-utils': of('ui/dist/esm/components/uPlot/utils.mjs'),
  'grafana-table-utils': of('ui/dist/esm/components/Table/TableNG/utils.mjs'),
  'prometheus-transform': of('prometheus/dist/esm/result_transformer.mjs'),
};

// The texts by the ends of their names: js, and css where there is any.
export async function bundle(entry, options) {
  const { outputFiles } = await build({
    ...options,
    alias,
    bundle: true,
    entryPoints: [here(entry)],
    logLevel: 'error',
    outdir: '/',
    write: false,
  });
  return Object.fromEntries(outputFiles.map(({ path, text }) => [path.split('.').at(-1), text]));
}
