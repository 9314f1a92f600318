// What the reports tell: figures on top, spend, promises, seasons, incidents.

import { report } from "/page/api.js";
import { el, fill, usd, share, ms, number } from "/page/show.js";
import { spend as drawSpend, calibration } from "/page/charts.js";

const $ = (selector) => document.querySelector(selector);
const HOURS = { "1h": 1, "6h": 6, "24h": 24, "7d": 168 };
const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

export async function figures(quotes) {
  const [savings, attainment] = await Promise.all([report("savings", { since: "24h" }), report("sla_attainment")]);
  const sum = (rows, name) => rows.reduce((total, r) => total + (r[name] || 0), 0);
  const requests = sum(savings, "requests"), best = sum(savings, "always_best_usd");
  const timed = attainment.filter((r) => r.on_time_kept != null);
  const scored = attainment.filter((r) => r.quality_kept != null);
  const shown = [
    [number(requests), "requests, 24 h"],
    [usd(sum(savings, "paid_usd")), "spent"],
    [best ? share(1 - sum(savings, "expected_usd") / best, 0) : "–", "saved against always-best"],
    [timed.length ? `${timed.filter((r) => r.on_time_kept).length} of ${timed.length}` : "–", "classes on time as promised"],
    [scored.length ? `${scored.filter((r) => r.quality_kept).length} of ${scored.length}` : "–", "classes as good as promised"],
    [String(quotes.offers.size), "offers quoted"],
  ];
  $("#figures").replaceChildren(...shown.map(([v, label]) => el("div", { class: "figure" }, el("b", {}, v), el("span", {}, label))));
  const kept = (flag, text) => el("span", { class: flag == null ? "" : flag ? "ok" : "bad" }, text);
  fill($("#classes"), [
    ["SLA class", (r) => r.sla_class],
    ["requests", (r) => number(r.requests)],
    ["good, promised", (r) => share(r.quality_promised)],
    ["delivered", (r) => kept(r.quality_kept, share(r.quality_delivered))],
    ["scores", (r) => number(r.scores)],
    ["on time, promised", (r) => share(r.on_time_promised)],
    ["delivered", (r) => kept(r.on_time_kept, share(r.on_time_delivered))],
    ["best effort", (r) => number(r.best_effort)],
    ["spent", (r) => usd(r.cost_usd)],
  ], attainment);
}

export async function spend() {
  const [since, bucket_minutes] = $("#period").value.split(",");
  const rows = await report("market_share", { since, bucket_minutes });
  if (!rows.length) return;
  const named = drawSpend("#spend-chart", rows, HOURS[since]);
  const calls = new Map();
  for (const r of rows) calls.set(r.offer, (calls.get(r.offer) || 0) + r.calls);
  fill($("#spend-table"), [
    ["most bought", ([offer]) => offer],
    ["calls", ([offer]) => number(calls.get(offer))],
    ["spent", ([, cost]) => usd(cost)],
  ], named);
}

export async function bought(quotes) {
  const rows = await report("market_share", { since: "1h", bucket_minutes: 120 });
  const calls = new Map();
  let total = 0;
  for (const r of rows) {
    calls.set(r.offer, (calls.get(r.offer) || 0) + r.calls);
    total += r.calls;
  }
  quotes.bought(new Map([...calls].map(([offer, n]) => [offer, n / total])));
  const prices = new Map();
  for (const r of (await report("price_history", { since: "90d" })).reverse()) {
    if (r.quarantined) continue;
    const known = prices.get(r.offer) || (r.old_output_usd_per_mtok == null ? [] : [r.old_output_usd_per_mtok]);
    prices.set(r.offer, [...known, r.output_usd_per_mtok]);
  }
  quotes.prices(prices);
}

export async function calibrations() {
  const [quality, onTime] = await Promise.all([report("calibration_quality"), report("calibration_on_time")]);
  calibration("#calibration-quality", quality);
  calibration("#calibration-on-time", onTime);
}

export async function seasons() {
  const rows = await report("hour_of_week", { min_n: 3 });
  const offers = [...new Set(rows.map((r) => r.offer))];
  const choice = $("#season-offer");
  const chosen = choice.value || offers[0];
  choice.replaceChildren(...offers.map((o) => el("option", { value: o, selected: o === chosen }, o)));
  const cells = new Map(rows.filter((r) => r.offer === chosen).map((r) => [r.hour_of_week, r]));
  const hours = [...Array(24).keys()];
  const head = el("thead", {}, el("tr", {}, el("th"), ...hours.map((h) => el("th", { scope: "col" }, h))));
  const body = el("tbody", {}, ...DAYS.map((day, d) => el("tr", {}, el("th", { scope: "row" }, day), ...hours.map((h) => cell(cells.get(24 * d + h), day, h)))));
  $("#heat").replaceChildren(head, body);
}

function cell(row, day, hour) {
  const td = el("td");
  if (!row) return td;
  const times = row.ttft_against_own_mean;
  td.textContent = times.toFixed(1);
  td.title = `${day} ${hour}:00 UTC: ${ms(row.ttft_geometric_mean_ms)}, ${share(row.failed_share)} failed, ${row.calls} calls`;
  td.style.setProperty("--hue", times > 1 ? "var(--hot)" : "var(--cold)");
  td.style.setProperty("--share", `${Math.min(80, Math.round(80 * Math.abs(Math.log2(times)))) }%`);
  return td;
}

export async function incidents() {
  fill($("#incidents"), [
    ["at", (r) => new Date(r.at).toLocaleString()],
    ["provider", (r) => r.provider, "text"],
    ["what", (r) => `${r.title || r.component} (${r.severity}, ${r.state})`, "text"],
    ["our calls failed", (r) => share(r.failed_share)],
  ], (await report("incidents")).slice(0, 12), "none reported");
}

export function circuits(broken) {
  const items = broken.map((o) => el("li", {}, el("code", {}, o.offer), ` ${o.health.replace("_", " ")}, ${share(o.fail_share)} failed`));
  document.querySelector("#circuits").replaceChildren(...(items.length ? items : [el("li", { class: "hint" }, "all closed")]));
}
