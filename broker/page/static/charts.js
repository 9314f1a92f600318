// Charts by uPlot: share of spend over time, and calibration. Redrawn when the window changes.

import { el } from "/page/show.js";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const HUES = [160, 210, 35, 280, 5, 95, 325, 55, 245];
const drawn = new Map();

function draw(target, options, data) {
  const node = document.querySelector(target);
  drawn.get(target)?.destroy();
  const plot = new uPlot({ width: Math.max(node.clientWidth, 260), ...options }, data, node);
  drawn.set(target, plot);
}

addEventListener("resize", () => {
  for (const [target, plot] of drawn) {
    plot.setSize({ width: Math.max(document.querySelector(target).clientWidth, 260), height: plot.height });
  }
});

const axis = (more = {}) => ({ stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, ...more });
const hue = (i) => `hsl(${HUES[i % HUES.length]} 55% ${matchMedia("(prefers-color-scheme: dark)").matches ? 65 : 42}%)`;

// rows of the report market_share: the offers with most spend, the rest together, stacked to 100 %.
export function spend(target, rows, hours) {
  const totals = new Map();
  for (const r of rows) totals.set(r.offer, (totals.get(r.offer) || 0) + r.cost_usd);
  const named = [...totals].sort((a, b) => b[1] - a[1]).slice(0, 8).map(([offer]) => offer);
  const times = [...new Set(rows.map((r) => Date.parse(r.bucket) / 1000))].sort((a, b) => a - b);
  const at = new Map(times.map((t, i) => [t, i]));
  const names = totals.size > named.length ? [...named, "others"] : named;
  const shares = names.map(() => times.map(() => 0));
  for (const r of rows) {
    const k = named.indexOf(r.offer);
    shares[k < 0 ? names.length - 1 : k][at.get(Date.parse(r.bucket) / 1000)] += r.share_of_spend || 0;
  }
  const stacked = shares.map(() => []);
  times.forEach((_, i) => {
    let sum = 0;
    shares.forEach((s, k) => { sum += s[i]; stacked[k].push(sum); });
  });
  draw(target, {
    height: 240,
    cursor: { points: { show: false } },
    scales: { x: { range: [Date.now() / 1000 - 3600 * hours, Date.now() / 1000] }, y: { range: [0, 1] } },
    axes: [axis(), axis({ values: (_, ticks) => ticks.map((v) => `${Math.round(100 * v)} %`) })],
    series: [{}, ...names.map((name, k) => ({
      label: name, stroke: hue(k), width: 1, points: { show: times.length < 3, size: 5 },
      value: (_, __, ___, i) => i == null ? "" : `${(100 * shares[k][i]).toFixed(1)} %`,
    }))],
    bands: names.map((_, k) => k ? { series: [k + 1, k], fill: tinted(hue(k)) } : null).filter(Boolean),
  }, [times, ...stacked]);
  return named.map((offer) => [offer, totals.get(offer)]);
}

const tinted = (colour) => colour.replace(")", " / .25)");

// rows with predicted, delivered, standard_error
export function calibration(target, rows) {
  if (!rows.length) {
    drawn.get(target)?.destroy();
    drawn.delete(target);
    document.querySelector(target).replaceChildren(el("p", { class: "hint" }, "nothing scored yet"));
    return;
  }
  if (!drawn.has(target)) document.querySelector(target).replaceChildren();
  const x = rows.map((r) => r.predicted);
  const points = (colour) => ({ stroke: colour, width: 0, points: { show: true, size: 8, fill: colour } });
  const bar = (sign) => rows.map((r) => Math.min(1, Math.max(0, r.delivered + sign * 1.96 * r.standard_error)));
  const low = Math.max(0, Math.min(...x, ...bar(-1)) - .05);
  draw(target, {
    height: 230,
    legend: { live: false },
    cursor: { show: false },
    scales: { x: { time: false, range: [low, 1] }, y: { range: [low, 1] } },
    axes: [axis({ label: "said" , labelSize: 18 }), axis({ label: "true", labelSize: 18 })],
    series: [{}, { label: "true", ...points(css("--accent")) },
      { label: "95 % interval", stroke: css("--soft"), width: 0, points: { show: true, size: 3, fill: css("--soft") } },
      { label: "", stroke: css("--soft"), width: 0, points: { show: true, size: 3, fill: css("--soft") } },
      { label: "perfect", stroke: css("--line"), width: 2, points: { show: false } }],
  }, [x, rows.map((r) => r.delivered), bar(-1), bar(1), x]);
}
