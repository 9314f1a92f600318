// How values look, and elements made without ever parsing HTML: whatever a provider or an app
// wrote is text here.

export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute === "class") node.className = value;
    else if (attribute.startsWith("on")) node.addEventListener(attribute.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(attribute, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c != null));
  return node;
}

export const usd = (v) => v == null ? "" : v === 0 ? "$0" : Math.abs(v) >= 1 ? `$${v.toFixed(2)}` : `$${v.toPrecision(3)}`;
export const share = (v, digits = 1) => v == null ? "" : `${(100 * v).toFixed(digits)} %`;
export const ms = (v) => v == null ? "" : v >= 10000 ? `${(v / 1000).toFixed(1)} s` : `${Math.round(v).toLocaleString("en")} ms`;
export const number = (v) => v == null ? "" : Number(v).toLocaleString("en", { maximumFractionDigits: 4 });
export const clock = (iso) => iso ? new Date(iso).toLocaleTimeString([], { hour12: false }) : "";

// columns: [heading, row => text or node, class?]
export function fill(table, columns, rows, empty = "nothing yet") {
  const head = el("thead", {}, el("tr", {}, ...columns.map(([h, , kind]) => el("th", { scope: "col", class: kind || "" }, h))));
  const body = el("tbody", {}, ...rows.map((row) =>
    el("tr", {}, ...columns.map(([, cell, kind]) => el("td", { class: kind || "" }, cell(row) ?? "")))));
  if (!rows.length) body.append(el("tr", {}, el("td", { colspan: columns.length, class: "text hint" }, empty)));
  table.replaceChildren(head, body);
}

const SVG = "http://www.w3.org/2000/svg";

export function sparkline(values, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  drawSparkline(svg, values);
  return svg;
}

export function drawSparkline(svg, values) {
  const path = svg.firstChild || svg.appendChild(document.createElementNS(SVG, "path"));
  const low = Math.min(...values), high = Math.max(...values);
  const y = (v) => high === low ? 12 : 22 - 20 * (v - low) / (high - low);
  const x = (i) => values.length < 2 ? 100 * i : 100 * i / (values.length - 1);
  const points = values.length === 1 ? [values[0], values[0]] : values;
  path.setAttribute("d", points.map((v, i) => `${i ? "L" : "M"}${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(""));
}
