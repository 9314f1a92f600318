// The bandit's params on the operators' port: read, change, history, roll back.

import { get, send } from "/page/api.js";
import { el, fill, number } from "/page/show.js";

let admin = null;
let shownVersion = null;
let showHistory = null;
let shownHistory = null;

async function adminUrl() {
  if (admin === null) admin = (await (await fetch("/page/settings.json")).json()).admin_url;
  return admin;
}

export async function load(force = false) {
  const base = await adminUrl();
  if (!base) return;
  const [now, history, trials] = await Promise.all(
    [get("/admin/params", base), get("/admin/params/history", base), get("/admin/params/trials", base)]);
  // What is being typed is not thrown away by a refresh that brings nothing new.
  const shown = [now.version, trials.shadow?.version, trials.canary?.version].join();
  const versions = history.versions.some((h) => h.version === 0) ? history.versions
    : [...history.versions, { version: 0, why: "the defaults" }];
  if (force || shown !== shownVersion) {
    show(base, now, trials);
    shownHistory = null;
  }
  shownVersion = shown;
  const past = JSON.stringify([history.versions, history.trials]);
  if (past !== shownHistory) showHistory(versions, history.trials);
  shownHistory = past;
}

// What is tried beside the params in force, and the ways to end it.
function tried(kind, trial, end) {
  if (!trial) return "";
  const changes = trial.changes.map((c) => `${c.path} ${number(c.old)} to ${number(c.new)}`).join(", ");
  const whose = trial.tenant ? `${trial.tenant}'s requests` : "requests";
  const ends = kind === "shadow" ? [["stop", "/admin/params/shadow/stop"]]
    : [["promote", "/admin/params/canary/promote"], ["abort", "/admin/params/canary/abort"]];
  return el("p", { class: "controls", id: `params-${kind}` },
    el("span", {}, `${kind}: version ${trial.version} on ${number(100 * trial.share)} % of ${whose}: ${changes} (${trial.why})`),
    ...ends.map(([word, path]) => el("button", { type: "button", class: "plain", onclick: () => end(path, trial.version) }, word)));
}

function show(base, now, trials) {
  const said = el("p", { role: "status", id: "params-said" });
  const why = el("input", { id: "why", type: "text", required: true, maxlength: 200, placeholder: "why", "aria-label": "why" });
  const act = async (job) => {
    try {
      const made = await job();
      await load(true);
      document.querySelector("#params-said").textContent = `version ${made.version ?? ""} is in force`;
    } catch (error) {
      said.textContent = error.message;
      said.className = "bad";
    }
  };
  const end = (path, version) => act(() => send("POST", path, { version, why: why.value || "from the market page" }, base));
  const told = el("div", { id: "params-preview", role: "status" });
  // What it would have done is shown first; only then can it be put in force.
  const preview = async (field, input) => {
    const changes = { [field.path]: Number(input.value) };
    told.replaceChildren(el("p", { class: "hint" }, "driving recorded traffic through it …"));
    const apply = el("button", { type: "button", id: "params-apply", onclick: () => act(() => send("PATCH", "/admin/params", {
      if_version: now.version, changes, why: why.value || "from the market page" }, base)) }, "put in force");
    const leave = el("button", { type: "button", class: "plain", onclick: () => told.replaceChildren() }, "leave it");
    try {
      const found = await send("POST", "/admin/params/preview", { changes }, base);
      told.replaceChildren(el("h3", {}, `${field.path}: ${number(field.value)} to ${number(changes[field.path])}`),
        el("pre", { class: found.whatif.called ? "bad" : "" }, found.words), el("p", { class: "controls" }, apply, leave));
    } catch (error) {
      // Refused: it would be refused in earnest as well. No store: there is nothing to preview with.
      told.replaceChildren(el("p", { class: "bad" }, error.message),
        error.status >= 500 ? el("p", { class: "controls" }, apply, leave) : "");
    }
  };
  const groups = Map.groupBy ? Map.groupBy(now.fields, (f) => f.path.split(".")[0]) : grouped(now.fields);
  const rows = [...groups].map(([group, fields]) => el("details", {}, el("summary", {}, group), ...fields.map((field) => {
    const input = el("input", { type: "number", step: "any", value: field.value, min: field.low, max: field.high, "aria-label": field.path, "data-path": field.path });
    const set = el("button", { type: "button", class: "plain", onclick: () => preview(field, input) }, "preview");
    return el("div", { class: "param" }, el("code", {}, field.path), el("span", {}, input),
      el("span", { class: "hint" }, set, ` ${field.meaning} (${number(field.low)} to ${number(field.high)} ${field.unit}; default ${number(field.default)})`));
  })));
  const past = el("table", { id: "params-history" });
  const canaries = el("table", { id: "params-canaries" });
  const followed = ["what followed", (h) => h.followed?.words || "", "text"];
  showHistory = (versions, events) => {
    fill(past, [
      ["version", (h) => String(h.version)],
      ["who", (h) => h.by || "", "text"],
      ["why", (h) => h.why || "", "text"],
      followed,
      ["", (h) => h.version === now.version ? "in force" : el("button", { type: "button", class: "plain", onclick: () =>
        act(() => send("POST", "/admin/params/rollback", { to: h.version, why: why.value || "rolled back from the market page" }, base)) }, "roll back to")],
    ], versions.slice(0, 12));
    // The newest word on each canary that was.
    const last = new Map();
    for (const e of events) if (e.trial === "canary" && !last.has(e.version)) last.set(e.version, e);
    fill(canaries, [
      ["canary", (e) => String(e.version)],
      ["", (e) => e.event === "canary" ? "runs" : e.event, "text"],
      ["why", (e) => e.why, "text"],
      followed,
    ], [...last.values()].slice(0, 6), "none");
  };
  document.querySelector("#params-body").replaceChildren(
    el("p", { class: "controls" }, el("b", {}, `version ${now.version}`), why), tried("shadow", trials.shadow, end),
    tried("canary", trials.canary, end), said, told, ...rows, el("h3", {}, "History"),
    el("p", { class: "hint" }, "What followed a version is before and after, SLA class by SLA class, with 95 % intervals: whatever else changed then is in it. A canary is told against the requests outside it, by lot."),
    el("div", { class: "wide" }, past), el("h3", {}, "Canaries"), el("div", { class: "wide" }, canaries));
}

function grouped(fields) {
  const groups = new Map();
  for (const field of fields) {
    const group = field.path.split(".")[0];
    groups.set(group, [...(groups.get(group) || []), field]);
  }
  return groups;
}
