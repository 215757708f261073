// Draws one dashboard with data from a Prometheus. Colours, units, overrides and transformations are Grafana's own
// (@grafana/data), and so are the graphs (uPlot); layout, legends and tables only resemble Grafana's.

import {
  FieldConfigOptionsRegistry,
  FieldType,
  applyFieldOverrides,
  createTheme,
  fieldReducers,
  formattedValueToString,
  getFieldDisplayName,
  getFieldSeriesColor,
  getValueFormat,
  guessDecimals,
  reduceField,
  roundDecimals,
  standardTransformers,
  standardTransformersRegistry,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { interpolateOranges } from 'd3-scale-chromatic';
import { lastValueFrom } from 'rxjs';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import './page.css';

const POINTS = 240;
const { dashboard, prometheus, minutes, scrape, open } = window.preview;
const theme = createTheme({ colors: { mode: 'dark' } });
const text = theme.colors.text.primary;

// Those that the tables use.
const { mergeTransformer, organizeFieldsTransformer } = standardTransformers;
standardTransformersRegistry.setInit(() =>
  [mergeTransformer, organizeFieldsTransformer].map((transformation) => ({ id: transformation.id, transformation })),
);
const option = (path, isCustom) => ({
  id: isCustom ? `custom.${path}` : path,
  path,
  isCustom,
  process: (value) => value,
  shouldApply: () => true,
});
const registry = new FieldConfigOptionsRegistry(() => [
  ...['unit', 'decimals', 'min', 'max', 'color', 'mappings', 'thresholds'].map((path) => option(path, false)),
  option('links', false),
  ...['lineWidth', 'lineStyle', 'fillOpacity', 'cellOptions', 'hidden'].map((path) => option(path, true)),
]);

// --- Prometheus

const end = Math.floor(Date.now() / 1000);
const start = end - 60 * minutes;
const step = Math.max(1, Math.round((end - start) / POINTS));
const times = Array.from({ length: Math.floor((end - start) / step) + 1 }, (_, i) => start + i * step);
const chosen = Object.fromEntries(dashboard.templating.list.map(({ name }) => [name, '.+']));
const seconds = (duration) => parseInt(duration) * { s: 1, m: 60, h: 3600 }[duration.at(-1)];

// As Grafana computes them: a query with a step of its own ("Min step") has it as scrape interval, too.
function variables({ interval }) {
  const least = interval ? seconds(interval) : scrape;
  const width = Math.max(step, least);
  return {
    ...chosen,
    __interval: `${width}s`,
    __rate_interval: `${Math.max(width + least, 4 * least)}s`,
    __range: `${end - start}s`,
  };
}

async function ask(path, parameters = {}) {
  const response = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const { status, data, error } = await response.json();
  if (status !== 'success') throw new Error(`${parameters.query}: ${error}`);
  return data;
}

async function frames(panel, target) {
  const values = variables(target);
  const query = target.expr.replace(/\$(?:\{(\w+)\}|([a-z_]\w*))/gi, (_, braced, bare) => values[braced ?? bare]);
  const { result } = target.instant
    ? await ask('query', { query, time: end })
    : await ask('query_range', { query, start, end, step });
  const value = panel.targets.length > 1 ? `Value #${target.refId}` : 'Value';
  return result.map(({ metric, values, value: single }) => {
    const known = new Map((values ?? [single]).map(([moment, number]) => [moment, Number(number)]));
    const moments = target.instant ? [single[0]] : times;
    const name = target.legendFormat.replace(/\{\{(\w+)\}\}/g, (_, label) => metric[label] ?? '');
    const labels = target.format === 'table' ? Object.entries(metric) : [];
    return toDataFrame({
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: moments.map((moment) => 1000 * moment) },
        ...labels.map(([label, content]) => ({ name: label, type: FieldType.string, values: [content] })),
        {
          name: value,
          type: FieldType.number,
          values: moments.map((moment) => known.get(moment) ?? null),
          config: name ? { displayNameFromDS: name } : {},
        },
      ],
    });
  });
}

// --- HTML

function element(kind, parent, content = '', style = {}) {
  const made = document.createElement(kind);
  made.textContent = content;
  Object.assign(made.style, style);
  parent.append(made);
  return made;
}

function table(parent, className, rows) {
  const made = element('table', parent);
  made.className = className;
  rows.forEach((cells, number) => {
    const row = element('tr', made);
    cells.forEach(([content, style]) => element(number ? 'td' : 'th', row, content, style));
  });
  return made;
}

const written = (field, value, decimals) => formattedValueToString(field.display(value, decimals));
const valueOf = (frame) => frame.fields.at(-1);

// --- Panels

// Between the marks of an axis without decimals.
const WHOLE = Array.from({ length: 30 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3));

function plot(box, { height, bottom, y, series, columns, bands, hooks, axis }) {
  const common = { stroke: text, grid: { stroke: theme.colors.border.weak, width: 1 }, ticks: { show: false } };
  const options = {
    width: box.clientWidth,
    height,
    series: [{}, ...series],
    bands,
    hooks,
    legend: { show: false },
    cursor: { show: false },
    tzDate: (seconds) => uPlot.tzDate(new Date(1000 * seconds), 'Etc/UTC'),
    scales: { x: { time: true, range: [start, end] }, y: { range: y } },
    axes: [
      { ...common, values: [[60, '{HH}:{mm}', null, null, null, null, null, null, 1]], size: 24, show: bottom },
      { ...common, ...axis },
    ],
  };
  new uPlot(options, [times, ...columns], box);
}

function timeseries(box, panel, found) {
  const fields = found.map(valueOf);
  const { custom, decimals, max, thresholds } = panel.fieldConfig.defaults;
  const stacked = custom.stacking.mode === 'normal';
  const rows = fields.map((field) => {
    const calculated = reduceField({ field, reducers: panel.options.legend.calcs });
    const numbers = panel.options.legend.calcs.map((id) => [written(field, calculated[id])]);
    return [[getFieldDisplayName(field), { color: getFieldSeriesColor(field, theme).color }], ...numbers];
  });
  const names = panel.options.legend.calcs.map((id) => [fieldReducers.get(id).name]);
  const legend = element('div', box);
  legend.className = 'legend';
  table(legend, '', [[['Name'], ...names], ...rows]);
  const below = times.map(() => 0);
  const sum = (value, i) => (value === null ? null : (below[i] += value));
  plot(box, {
    height: box.clientHeight - legend.offsetHeight,
    y: (_, low, high) => [0, max ?? top(high, custom.axisSoftMax)],
    columns: fields.map((field) => (stacked ? field.values.map(sum) : field.values)),
    bands: stacked ? fields.slice(1).map((_, i) => ({ series: [i + 2, i + 1] })) : [],
    series: fields.map((field) => {
      const stroke = getFieldSeriesColor(field, theme).color;
      const { lineWidth, lineStyle, fillOpacity } = field.config.custom;
      const fill = stroke + Math.round((255 * fillOpacity) / 100).toString(16).padStart(2, '0');
      return { stroke, fill, width: lineWidth, dash: lineStyle?.dash, points: { show: false } };
    }),
    hooks: { drawClear: [(chart) => custom.thresholdsStyle.mode !== 'off' && lines(chart, thresholds.steps)] },
    axis: {
      size: 70,
      ...(decimals === 0 && { incrs: WHOLE }),
      values: (_, splits, __, ___, increment) =>
        splits.map((value) => written(fields[0], value, guessDecimals(roundDecimals(increment, 10)))),
    },
  });
  box.append(legend);
}

const top = (highest, soft) => uPlot.rangeNum(0, highest, { min: { pad: 0 }, max: { pad: 0.1, soft, mode: 1 } })[1];

// Dashed lines at the thresholds.
function lines({ ctx, bbox, scales, valToPos }, steps) {
  ctx.save();
  ctx.setLineDash([10, 10]);
  for (const { value, color } of steps) {
    if (!Number.isFinite(value) || value > scales.y.max) continue;
    ctx.strokeStyle = theme.visualization.getColorByName(color);
    ctx.beginPath();
    ctx.moveTo(bbox.left, valToPos(value, 'y', true));
    ctx.lineTo(bbox.left + bbox.width, valToPos(value, 'y', true));
    ctx.stroke();
  }
  ctx.restore();
}

// Rows of coloured cells, one column for each point in time.
function cells(box, rows, colour, { thickness, labels, at }) {
  const draw = ({ ctx, valToPos }) =>
    rows.forEach((row, number) =>
      row.forEach((value, column) => {
        const fill = colour(value);
        if (!fill) return;
        const [left, right] = [column, column + 1].map((i) => valToPos(start + i * step, 'x', true));
        const [low, high] = [0.5 - thickness / 2, 0.5 + thickness / 2].map((i) => valToPos(number + i, 'y', true));
        ctx.fillStyle = fill;
        ctx.fillRect(left, high, right - left + 0.6, low - high - 0.5);
      }),
    );
  plot(box, {
    height: box.clientHeight,
    y: [0, rows.length],
    columns: [times.map(() => null)],
    series: [{}],
    hooks: { draw: [draw] },
    axis: {
      splits: () => labels.map((_, i) => i + at),
      values: () => labels,
      size: 20 + 7 * Math.max(...labels.map(({ length }) => length)),
    },
  });
}

function heatmap(box, panel, found) {
  const bound = (frame) => Number(getFieldDisplayName(valueOf(frame)).replace('+Inf', 'Infinity'));
  const sorted = found.toSorted((one, other) => bound(one) - bound(other));
  const counts = sorted.map((frame) => valueOf(frame).values);
  const rows = counts.map((row, i) => row.map((value, column) => value - (i ? counts[i - 1][column] : 0)));
  const most = Math.max(...rows.flat());
  const format = getValueFormat(panel.options.yAxis.unit);
  const shown = Math.ceil((18 * rows.length) / box.clientHeight);
  const labels = sorted.map((frame, i) =>
    i % shown ? '' : Number.isFinite(bound(frame)) ? formattedValueToString(format(bound(frame))) : '+Inf',
  );
  // On a dark background Grafana reverses the scheme: the lighter, the more.
  cells(box, rows, (value) => value > 0 && interpolateOranges(1 - value / most), { thickness: 1, labels, at: 1 });
}

function timeline(box, panel, found) {
  const fields = found.map(valueOf).reverse();
  const colour = (value) => value !== null && fields[0].display(value).color;
  const labels = fields.map((field) => getFieldDisplayName(field));
  cells(box, fields.map((field) => field.values), colour, { thickness: 0.9, labels, at: 0.5 });
}

// One value, or several with their names, each as large as its part of the tile lets it.
function stat(box, panel, found) {
  const row = element('div', box);
  row.className = 'stat';
  const shown = found.length
    ? found.map(valueOf).map((field) => {
        const { color } = field.display(field.values[0]);
        return { name: found.length > 1 ? getFieldDisplayName(field) : '', value: written(field, field.values[0]), color };
      })
    : [{ name: '', value: panel.fieldConfig.defaults.noValue, color: text }];
  for (const { name, value, color } of shown) {
    const cell = element('div', row, '', { color });
    if (name) element('small', cell, name);
    const number = element('b', cell, value);
    const room = { width: box.clientWidth / shown.length - 24, height: box.clientHeight - (name ? 22 : 4) };
    number.style.fontSize = `${Math.min(40, room.height, (1.4 * room.width) / value.length)}px`;
  }
}

function rowsOf(box, panel, [frame]) {
  const [{ displayName, desc }] = panel.options.sortBy;
  const fields = frame.fields.filter(({ config }) => !config.custom?.hidden);
  const heading = frame.fields.find((field) => getFieldDisplayName(field) === displayName);
  const order = Array.from({ length: frame.length }, (_, i) => i).sort(
    (one, other) => (heading.values[one] > heading.values[other] ? 1 : -1) * (desc ? -1 : 1),
  );
  const cell = (field, value) => {
    const shown = value === null || value === undefined ? null : field.display(value);
    const coloured = field.config.custom?.cellOptions?.type === 'color-text';
    const colour = { color: shown && coloured ? shown.color : text };
    const linked = field.config.links?.length ? { textDecoration: 'underline' } : {};
    return [shown ? formattedValueToString(shown) : '', { ...colour, ...linked }];
  };
  table(box, 'rows', [
    fields.map((field) => [getFieldDisplayName(field)]),
    ...order.map((i) => fields.map((field) => cell(field, field.values[i]))),
  ]);
}

async function alertlist(box) {
  const { alerts } = await ask('alerts');
  const ours = ({ labels }) => labels.service === 'wgkex' && labels.severity !== 'none';
  const rows = alerts.filter(ours).map(({ labels, state }) => [[labels.alertname], [state], [labels.severity]]);
  table(box, 'rows', [[['Alert'], ['State'], ['Severity']], ...rows]);
}

const KINDS = { timeseries, heatmap, stat, table: rowsOf, 'state-timeline': timeline };

async function draw(box, panel) {
  if (panel.type === 'alertlist') return alertlist(box);
  const asked = (await Promise.all(panel.targets.map((target) => frames(panel, target)))).flat();
  const data = await lastValueFrom(transformDataFrame(panel.transformations ?? [], asked));
  const found = applyFieldOverrides({
    data,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: (content) => content,
    theme,
    timeZone: 'utc',
  });
  // Without the frame, a field does not know the legend of its query.
  for (const frame of found) for (const field of frame.fields) getFieldDisplayName(field, frame);
  if (!found.length && panel.type !== 'stat')
    element('div', box, panel.fieldConfig.defaults.noValue ?? 'No data').className = 'none';
  else KINDS[panel.type](box, panel, found);
}

// The panels that are seen, and by how many lines each has moved down, because sections above it were opened.
function shownPanels() {
  let shift = 0;
  return dashboard.panels.flatMap((panel) => {
    const heading = { panel, shift };
    if (!open || !panel.panels?.length) return [heading];
    const inner = panel.panels.map((each) => ({ panel: each, shift: heading.shift }));
    shift += Math.max(...panel.panels.map(({ gridPos: { y, h } }) => y + h)) - panel.gridPos.y - 1;
    return [heading, ...inner];
  });
}

async function page() {
  const grid = document.querySelector('main');
  document.querySelector('h1').textContent = dashboard.title;
  for (const { panel, shift } of shownPanels()) {
    const { x, y, w, h } = panel.gridPos;
    const place = { gridArea: `${y + shift + 1} / ${x + 1} / span ${h} / span ${w}` };
    if (panel.type === 'row') {
      element('h2', grid, `${panel.collapsed && !open ? '\u203a' : '\u2304'} ${panel.title}`, place);
      continue;
    }
    const frame = element('section', grid, '', place);
    frame.title = panel.description;
    element('h3', frame, panel.title);
    const box = element('div', frame);
    box.className = 'box';
    await draw(box, panel).catch((error) => (box.textContent = error));
  }
}

page();
