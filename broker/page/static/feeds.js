// How feeds are doing, what status pages say, which prices are not believed yet.

import { get } from "/page/api.js";
import { el, fill, usd } from "/page/show.js";

const $ = (selector) => document.querySelector(selector);

export async function load() {
  const { data, incidents, held_prices: held, withdrawn } = await get("/v1/feeds");
  const fresh = data.filter((f) => f.state === "fresh").length;
  $("#n-feeds").textContent = data.length ? `${fresh} of ${data.length} feeds fresh` : "no feed is polled";
  const shown = $("#all-feeds").checked ? data : data.filter((f) => f.state !== "fresh" || f.held);
  fill($("#feed-table"), [
    ["feed", (f) => f.feed, "text"],
    ["state", (f) => el("span", { class: f.state === "fresh" ? "ok" : "bad", title: f.error }, f.state), "text"],
    ["understood", (f) => f.age_s == null ? "never" : `${Math.round(f.age_s)} s ago`],
    ["refused", (f) => String(Object.values(f.refused).reduce((a, b) => a + b, f.unreadable))],
    ["holds", (f) => `${f.items} ${f.of === "prices" ? "prices" : "incidents"}`],
  ], shown, data.length ? "all fresh" : "none");
  fill($("#held-prices"), [
    ["offer", (p) => p.offer, "text"],
    ["said, $/M", (p) => p.withdrawn ? "sold no longer" : `${usd(p.input_usd_per_mtok)} / ${usd(p.output_usd_per_mtok)}`],
    ["in force", (p) => p.in_force_input_usd_per_mtok == null ? "" : `${usd(p.in_force_input_usd_per_mtok)} / ${usd(p.in_force_output_usd_per_mtok)}`],
    ["why", (p) => `${p.why} (${p.source})`, "text"],
  ], held, "none");
  fill($("#withdrawn"), [
    ["offer", (w) => w.offer, "text"],
    ["by", (w) => w.source, "text"],
    ["since", (w) => new Date(w.since_us / 1000).toISOString().slice(0, 16).replace("T", " "), "text"],
  ], withdrawn, "none");
  fill($("#going-on"), [
    ["provider", (i) => i.provider, "text"],
    ["what", (i) => `${i.title} (${i.severity}, ${i.state})`, "text"],
    ["concerns", (i) => i.concerns === "models" ? i.models.join(", ") : i.concerns === "none" ? "none of ours" : "all of it", "text"],
  ], incidents.slice(0, 12), "nothing");
}
