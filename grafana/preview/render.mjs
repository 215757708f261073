#!/usr/bin/env node
// Draw the dashboards with data from a running Prometheus, as pages and as pictures: the first screen of two usual
// sizes, and all of it with every section open.
// Usage: grafana/preview/render.mjs PROMETHEUS DIRECTORY [MINUTES [SCRAPE_INTERVAL]]
//   for example: grafana/preview/render.mjs http://127.0.0.1:9090 /tmp/preview 15 15
// Needs node, npm and chromium (Debian: nodejs, npm, chromium), and fetches the libraries from the npm registry once,
// into .cache.

import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

// @grafana/data is of the version that the dashboards are made for, uPlot the one that it is used with there.
const PACKAGES = [
  ...['@grafana/data@11.6.0', 'uplot@1.6.31', 'rxjs@7.8.1', 'd3-scale-chromatic@3.1.0', 'react@18.3.1'],
  ...['react-dom@18.3.1', 'esbuild@0.25.0'],
];
// In pixels. Desktop, browser, and Grafana's own bars take about a quarter of a high screen, and a third of a low one.
const SCREENS = { large: [1920, 1080 - 260], small: [1366, 768 - 260] };
const WIDTH = 1600;
const LINE = 38;
const TITLE = 34;

const [prometheus, directory, minutes = 15, scrape = 15] = process.argv.slice(2);
if (!directory) {
  console.error('usage: grafana/preview/render.mjs PROMETHEUS DIRECTORY [MINUTES [SCRAPE_INTERVAL]]');
  process.exit(2);
}
const here = dirname(fileURLToPath(import.meta.url));
const place = join(here, '../../.cache/preview');
const out = resolve(directory);
const run = (command, ...rest) => {
  // Chromium reports every service that a container lacks.
  const errors = command === 'chromium' ? 'ignore' : 'inherit';
  execFileSync(command, rest, { cwd: place, stdio: ['ignore', 'ignore', errors] });
};

mkdirSync(place, { recursive: true });
mkdirSync(out, { recursive: true });
const installed = join(place, 'installed');
if (!existsSync(installed) || readFileSync(installed, 'utf8') !== PACKAGES.join(' ')) {
  writeFileSync(join(place, 'package.json'), '{"private": true}');
  const quietly = ['--silent', '--no-audit', '--no-fund', '--no-package-lock', '--ignore-scripts'];
  run('npm', 'install', ...quietly, ...PACKAGES);
  writeFileSync(installed, PACKAGES.join(' '));
}
for (const name of ['page.js', 'page.css']) cpSync(join(here, name), join(place, name));
run('node_modules/.bin/esbuild', 'page.js', '--bundle', '--log-level=error', `--outfile=${join(out, 'preview.js')}`);

const dashboards = join(here, '../dashboards');
for (const file of readdirSync(dashboards)) {
  const dashboard = JSON.parse(readFileSync(join(dashboards, file), 'utf8'));
  const lines = dashboard.panels
    .flatMap((panel) => panel.panels ?? [panel])
    .reduce((sum, { gridPos: { w, h } }) => sum + (w * h) / 24, dashboard.panels.length);
  const pictures = {
    ...Object.fromEntries(Object.entries(SCREENS).map(([name, size]) => [name, { open: false, size }])),
    open: { open: true, size: [WIDTH, LINE * Math.ceil(lines)] },
  };
  for (const [name, { open, size: [width, height] }] of Object.entries(pictures)) {
    const settings = JSON.stringify({ dashboard, prometheus, minutes: Number(minutes), scrape: Number(scrape), open });
    const page = join(out, `${dashboard.uid}-${name}.html`);
    writeFileSync(
      page,
      `<!doctype html><meta charset=utf-8><link rel=stylesheet href=preview.css><h1></h1><main></main>
<script>window.preview = ${settings.replaceAll('<', '\\u003c')}</script><script src=preview.js></script>\n`,
    );
    run(
      ...['chromium', '--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars'],
      ...['--virtual-time-budget=20000', `--window-size=${width},${height + TITLE}`],
      ...[`--screenshot=${join(out, `${dashboard.uid}-${name}.png`)}`, `file://${page}`],
    );
  }
}
