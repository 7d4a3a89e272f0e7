// Draws the traffic charts from the page's stream. A chart is an SVG of bars or lines over the same time steps.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const MARGIN = { top: 10, right: 8, bottom: 22, left: 56 };
/** A line is interrupted where this many steps have no value. */
const GAP = 10;
/** Milliseconds until a new attempt to connect where the browser makes none. */
const RECONNECTS_AFTER = 2000;
const page = document.getElementById("traffic");
const words = page.dataset;
const status = document.getElementById("traffic-state");

/** The points shown, by time; begin and step are in seconds. */
const shown = { points: new Map(), begin: 0, step: 1, steps: 0 };
/** The time of the step under the pointer; if null, the latest step is read out. */
let pointed = null;

const svg = (name, attributes, ...children) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

// --- Words -------------------------------------------------------------------------------------------------------

/** The page's language, which may differ from the browser's. */
const LANGUAGE = document.documentElement.lang;
const count = (value) => Math.round(value).toLocaleString(LANGUAGE);
const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`);
const clock = (seconds) => {
  const at = new Date(seconds * 1000);
  if (shown.step === 1) return at.toLocaleTimeString(LANGUAGE);
  const time = at.toLocaleTimeString(LANGUAGE, { hour: "2-digit", minute: "2-digit" });
  return shown.step < 3600 ? time : `${at.toLocaleDateString(LANGUAGE, { month: "short", day: "numeric" })} ${time}`;
};

// --- The charts: series of {name, look, values by step} ---------------------------------------------------------

const times = () => Array.from({ length: shown.steps }, (_, index) => shown.begin + index * shown.step);
const values = (read) => times().map((t) => (shown.points.has(t) ? read(shown.points.get(t)) : undefined));
const named = (field) => [...new Set([...shown.points.values()].flatMap((point) => Object.keys(point[field] ?? {})))].sort();

const CHARTS = {
  begun: () => ({
    kind: "bars",
    format: count,
    series: [{ name: "", look: "plain", values: values((point) => point.begun ?? 0) }],
  }),
  took: () => ({
    kind: "lines",
    format: duration,
    series: ["p50", "p95", "p99"].map((name, index) => ({
      name, look: `line${index}`, values: values((point) => point.took?.[index]),
    })),
  }),
  lag: () => ({
    kind: "lines",
    format: count,
    empty: words.noLag,
    series: named("lag").map((name, index) => ({
      name, look: `line${index % 4}`, values: values((point) => point.lag?.[name]),
    })),
  }),
};
const verdictsOf = (service) => () => ({
  kind: "bars",
  format: count,
  series: [["green", 0], ["red", 1]].map(([look, index]) => ({
    name: words[look], look, values: values((point) => point.verdicts?.[service]?.[index] ?? 0),
  })),
});

// --- Drawing -----------------------------------------------------------------------------------------------------

/** The ticks of an axis up to `most`: three to five, in steps of 1, 2 or 5 times a power of ten; integers for counts. */
const ticksUpTo = (most, isCount) => {
  const least = Math.max(most / 4, isCount ? 1 : 1e-9);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= least);
  return Array.from({ length: Math.max(1, Math.ceil(most / step)) + 1 }, (_, index) => index * step);
};

const extent = ({ kind, series }) => {
  const heights = kind === "bars"
    ? times().map((_, index) => series.reduce((sum, each) => sum + (each.values[index] ?? 0), 0))
    : series.flatMap((each) => each.values.filter((value) => value !== undefined));
  return heights.reduce((most, each) => Math.max(most, each), 0);
};

const axes = (width, heights, format, x, y) => {
  const parts = [];
  for (const height of heights) {
    const at = y(height);
    parts.push(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }));
    parts.push(svg("text", { class: "tick end", x: MARGIN.left - 6, y: at + 4 }, format(height)));
  }
  const ticks = Math.max(2, Math.min(6, Math.floor(width / 110)));
  for (let tick = 0; tick < ticks; tick += 1) {
    const index = Math.round((tick * (shown.steps - 1)) / (ticks - 1));
    const anchor = tick === 0 ? "" : tick === ticks - 1 ? " end" : " middle";
    const label = clock(shown.begin + index * shown.step);
    parts.push(svg("text", { class: `tick${anchor}`, x: x(index), y: HEIGHT - 5 }, label));
  }
  return parts;
};

const bars = ({ series }, x, y) => {
  const room = x(1) - x(0);
  const wide = room < 4 ? room : room * 0.8;
  return times().flatMap((_, index) => {
    let below = 0;
    return series.filter((each) => each.values[index]).map((each) => {
      const from = below;
      below += each.values[index];
      return svg("rect", {
        class: each.look, x: x(index) - wide / 2, width: wide, y: y(below), height: Math.max(0.5, y(from) - y(below)),
      });
    });
  });
};

/** A line through the steps with values, interrupted at gaps of more than GAP steps; a single value becomes a dot. */
const lines = ({ series }, x, y) => series.flatMap((each) => {
  const known = each.values.map((value, index) => ({ value, index })).filter(({ value }) => value !== undefined);
  const isJoined = (place) => place > 0 && place < known.length && known[place].index - known[place - 1].index <= GAP;
  const path = known.map(({ value, index }, place) => (
    `${isJoined(place) ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`
  ));
  const dots = known.filter((_, place) => !isJoined(place) && !isJoined(place + 1))
    .map(({ value, index }) => svg("circle", { class: each.look, cx: x(index), cy: y(value), r: 2.5 }));
  return [svg("path", { class: each.look, d: path.join("") }), ...dots];
});

const draw = (figure, chart) => {
  const picture = figure.querySelector("svg") ?? figure.appendChild(svg("svg", { role: "img" }));
  const width = Math.max(280, figure.clientWidth);
  const most = extent(chart);
  const isEmpty = chart.series.length === 0 || chart.series.every((each) => each.values.every((value) => !value));
  const heights = ticksUpTo(Math.max(most, 1), chart.format === count);
  const top = heights.at(-1);
  const x = (index) => MARGIN.left + (index * (width - MARGIN.left - MARGIN.right)) / Math.max(1, shown.steps - 1);
  const y = (value) => HEIGHT - MARGIN.bottom - (value / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const parts = axes(width, heights, chart.format, x, y);
  parts.push(...(chart.kind === "bars" ? bars(chart, x, y) : lines(chart, x, y)));
  const hasNoLag = chart.empty && chart.series.length === 0;
  if (hasNoLag || (isEmpty && !chart.empty)) {
    const text = hasNoLag ? chart.empty : words.nothing;
    parts.push(svg("text", { class: "empty middle", x: width / 2, y: HEIGHT / 2 }, text));
  }
  if (pointed !== null) {
    const at = x((pointed - shown.begin) / shown.step);
    parts.push(svg("line", { class: "pointer", x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
  }
  picture.replaceChildren(...parts);
  readOut(figure, chart);
  picture.setAttribute("aria-label", figure.querySelector("figcaption").textContent);
};

/** Shows the values at the pointer as text, or those of the latest step with values. */
const readOut = (figure, chart) => {
  const all = times();
  let index = pointed === null ? -1 : all.indexOf(pointed);
  if (index < 0) index = chart.kind === "lines" ? all.findLastIndex((_, at) => chart.series.some((each) => each.values[at] !== undefined)) : all.length - 1;
  const output = figure.querySelector("output");
  if (index < 0 || chart.series.length === 0) return output.replaceChildren();
  const parts = chart.series.map((each) => {
    const key = document.createElement("span");
    key.className = `key ${each.look}`;
    const value = each.values[index];
    key.append(`${each.name} ${value === undefined ? "–" : chart.format(value)}`.trim());
    return key;
  });
  output.replaceChildren(`${clock(all[index])} `, ...parts);
};

const figureOf = (service) => {
  const template = page.querySelector("[data-chart=verdicts]");
  const known = [...page.querySelectorAll("[data-service]")].find((each) => each.dataset.service === service);
  if (known) return known;
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const title = document.createElement("b");
  title.textContent = `${template.dataset.title} ${service}`;
  caption.append(title, ` ${template.dataset.unit}`, document.createElement("output"));
  figure.dataset.service = service;
  figure.append(caption);
  page.append(figure);
  return figure;
};

const drawAll = () => {
  if (!shown.steps) return;
  for (const [name, chart] of Object.entries(CHARTS)) draw(page.querySelector(`[data-chart=${name}]`), chart());
  for (const service of named("verdicts")) draw(figureOf(service), verdictsOf(service)());
  // The number of drawings, for tests.
  page.dataset.drawn = Number(page.dataset.drawn ?? 0) + 1;
};

// --- The stream and the pointer ------------------------------------------------------------------------------------

const say = (text, isBad) => {
  if (status.textContent !== text) status.textContent = text;
  status.classList.toggle("operation-bad-text", isBad);
  page.classList.toggle("is-stale", isBad);
};

function connect() {
  const source = new EventSource(words.stream);
  source.addEventListener("points", ({ data }) => {
    const { step, begin, steps, points } = JSON.parse(data);
    Object.assign(shown, { step, begin, steps });
    for (const point of points) shown.points.set(point.t, point);
    for (const t of shown.points.keys()) if (t < begin) shown.points.delete(t);
    say("", false);
    drawAll();
  });
  source.addEventListener("problem", ({ data }) => say(JSON.parse(data), true));
  source.addEventListener("error", () => {
    say(status.dataset.lost, true);
    // The answer was not a stream, and the browser does not ask again.
    if (source.readyState === EventSource.CLOSED) reconnect();
  });
}

// Connects again after a pause, unless the session has ended or a permission was revoked. The gateway's answer for a process
// that restarts is no refusal.
async function reconnect() {
  const asking = new AbortController();
  const answer = await fetch(words.stream, { signal: asking.signal }).catch(() => null);
  asking.abort();
  if (answer && answer.status >= 400 && answer.status < 500) say(status.dataset.refused, true);
  else setTimeout(connect, RECONNECTS_AFTER);
}

connect();

page.addEventListener("pointermove", (event) => {
  const picture = event.target.closest("svg");
  if (!picture) return;
  const box = picture.getBoundingClientRect();
  const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
  const index = Math.min(shown.steps - 1, Math.max(0, Math.round(share * (shown.steps - 1))));
  pointed = shown.begin + index * shown.step;
  drawAll();
});
page.addEventListener("pointerleave", () => { pointed = null; drawAll(); });
new ResizeObserver(drawAll).observe(page);
