// Draws a dashboard: node picture.mjs PAYLOAD.json OUT.png [CHROMIUM]
// A browser without a window opens the page of src/picture.tsx, served here on loopback.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import UPNG from 'upng-js';

import { bundle } from './bundle.mjs';

const WIDTH = 1600;
const COLORS = 256; // few enough for a small file, enough for every panel
const TOP_HEIGHT = 104;
const ROW_HEIGHT = 38;
const ICONS = fileURLToPath(new URL('node_modules/@grafana/ui/dist/public/', import.meta.url));
const HTML = `<!doctype html><html lang="en-IN"><link rel="stylesheet" href="page.css">
<body><div id="root"></div><script src="page.js"></script></body></html>`;

const [file, out, chromium = 'chromium'] = process.argv.slice(2);
const payload = await readFile(file, 'utf8');
const { css, js } = await bundle('src/picture.tsx', {
  define: { 'process.env.NODE_ENV': '"production"' },
  jsx: 'automatic',
  loader: { '.ttf': 'empty', '.woff': 'empty', '.woff2': 'dataurl' },
  minify: true,
});
const pages = {
  '/': ['text/html; charset=utf-8', HTML],
  '/page.css': ['text/css', css],
  '/page.js': ['text/javascript; charset=utf-8', js],
  '/payload.json': ['application/json', payload],
};

const server = createServer(async ({ url }, response) => {
  const icon = url.replace('/public/build/', '');
  const [type, body] = pages[url] ?? ['image/svg+xml', await readFile(ICONS + icon).catch(() => '')];
  response.writeHead(body ? 200 : 404, { 'content-type': type }).end(body);
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');

const ends = JSON.parse(payload).dashboard.panels.map(({ gridPos: { h, y } }) => y + h);
const height = TOP_HEIGHT + Math.max(...ends) * ROW_HEIGHT + 8;
const profile = await mkdtemp(join(tmpdir(), 'picture-'));
const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  '--hide-scrollbars',
  '--enable-logging=stderr',
  `--user-data-dir=${profile}`,
  `--window-size=${WIDTH},${height}`,
  '--virtual-time-budget=10000',
  `--screenshot=${out}`,
  `http://127.0.0.1:${server.address().port}/`,
];
const browser = spawn(chromium, flags, {
  env: { ...process.env, TZ: 'UTC' },
  stdio: ['ignore', 'ignore', 'pipe'],
});
const said = [];
browser.stderr.setEncoding('utf8').on('data', (text) => said.push(text));
const [code] = await once(browser, 'close');
server.close();
await rm(profile, { force: true, recursive: true });
const errors = said.join('').match(/^.*CONSOLE.*(?:error|Error|Uncaught).*$/gm) ?? [];
if (code !== 0 || errors.length) {
  console.error(errors.length ? errors.join('\n') : said.join(''));
  process.exit(1);
}
const picture = UPNG.decode(await readFile(out));
const small = UPNG.encode(UPNG.toRGBA8(picture), picture.width, picture.height, COLORS);
await writeFile(out, Buffer.from(small));
