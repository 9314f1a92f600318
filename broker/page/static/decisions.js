// Recent decisions and the autopsy of one.

import { get, report } from "/page/api.js";
import { el, fill, usd, share, ms, number, clock } from "/page/show.js";

const $ = (selector) => document.querySelector(selector);

export async function recent() {
  const rows = await report("recent_decisions", { limit: 15, since: "24h", failed_only: $("#failed-only").checked });
  fill($("#recent"), [
    ["at", (r) => clock(r.at)],
    ["decision", (r) => el("button", { type: "button", class: "plain mono", onclick: () => autopsy(r.decision_id) }, r.decision_id.slice(0, 16)), "text"],
    ["class", (r) => r.sla_class, "text"],
    ["bought", (r) => r.offer, "text"],
    ["ended", (r) => el("span", { class: r.failure === "ok" ? "ok" : "bad" }, r.failure + (r.on_time === false ? ", late" : "")), "text"],
    ["attempts", (r) => number(r.attempts)],
    ["took", (r) => ms(r.total_ms)],
    ["cost", (r) => usd(r.cost_usd)],
  ], rows);
}

export async function autopsy(id) {
  const place = $("#autopsy");
  place.hidden = false;
  $("#decision").value = id;
  try {
    place.replaceChildren(...told(await get(`/v1/decisions/${encodeURIComponent(id)}`)));
  } catch (error) {
    place.replaceChildren(el("p", { role: "alert" }, error.message));
  }
  place.scrollIntoView({ block: "nearest" });
}

function told(flight) {
  const { asked, decided, attempts, delivered } = flight;
  const bids = el("table");
  fill(bids, [
    ["bid", (b) => b.offer],
    ["score", (b) => usd(b.score_usd)],
    ["expected cost", (b) => usd(b.cost_usd)],
    ["P(good)", (b) => share(b.p_good)],
    ["P(on time)", (b) => share(b.p_on_time)],
  ], decided.ranked, "nobody bid");
  const start = Math.min(...attempts.map((a) => a.started_at_us));
  const end = Math.max(...attempts.map((a) => a.started_at_us + 1000 * (a.total_ms || 0)), start + 1);
  const lines = attempts.map((a) => {
    const bar = el("i", { class: a.failure === "ok" ? "" : "failed" });
    bar.style.left = `${100 * (a.started_at_us - start) / (end - start)}%`;
    bar.style.width = `${Math.max(0.5, 100 * 1000 * (a.total_ms || 0) / (end - start))}%`;
    return el("div", { class: "timeline" }, bar, el("span", {}, `${a.n}. ${a.offer}: ${a.failure}${a.ttft_ms ? `, first token ${ms(a.ttft_ms)}` : ""}${a.total_ms ? `, ${ms(a.total_ms)}` : ""}`));
  });
  const away = Object.entries(decided.no_bids).map(([reason, n]) => `${n} ${reason.replaceAll("_", " ")}`).join(", ");
  return [
    el("h3", {}, `Autopsy of ${flight.decision_id}`),
    el("ul", {}, ...flight.why.map((line) => el("li", {}, line))),
    el("p", { class: "hint" }, `Asked: ${asked.task}, ${number(asked.input_tokens)} tokens, SLA ${JSON.stringify(asked.sla)}. `,
      `View ${decided.view}, params ${decided.params_version}, seed ${decided.seed}.`),
    el("p", {}, `Delivered by ${delivered.offer || "nobody"}: ${delivered.failure}${delivered.on_time == null ? "" : delivered.on_time ? ", on time" : ", late"}, ${usd(delivered.cost_usd)}.`),
    ...lines,
    el("div", { class: "wide" }, bids),
    away ? el("p", { class: "hint" }, `Turned away: ${away}.`) : null,
  ].filter(Boolean);
}

export function listen() {
  $("#search").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = $("#decision").value.trim();
    if (id) autopsy(id);
  });
  $("#failed-only").addEventListener("change", recent);
}
