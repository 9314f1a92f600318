// The live table of quotes. Rows are kept and only cells that changed are written.

import { el, usd, share, ms, sparkline, drawSparkline } from "/page/show.js";

const SHOWN = 25;
const KEPT = 90;

const COLUMNS = [
  ["offer", "offer", (o) => o.offer, "text"],
  ["$/M in", "input_usd_per_mtok", (o) => usd(o.input_usd_per_mtok), ""],
  ["$/M out", "output_usd_per_mtok", (o) => usd(o.output_usd_per_mtok), ""],
  ["price", null, null, "extra"],
  ["TTFT", "ttft_ms", (o) => ms(o.ttft_ms), ""],
  ["last minute", null, null, "extra"],
  ["per token", "tpot_ms", (o) => `${o.tpot_ms.toFixed(1)} ms`, "extra"],
  ["fails", "fail_share", (o) => share(o.fail_share), ""],
  ["in flight", "in_flight", (o) => String(o.in_flight), "extra"],
  ["bought, 1 h", "bought", (o) => o.bought ? share(o.bought) : "", ""],
  ["circuit", "health", (o) => o.health.replace("_", " "), ""],
];

export class Quotes {
  constructor(onCircuits) {
    this.offers = new Map();
    this.rows = new Map();
    this.sort = { by: "bought", down: true };
    this.onCircuits = onCircuits;
    this.table = document.querySelector("#quotes");
    this.filter = document.querySelector("#filter");
    this.all = document.querySelector("#all-offers");
    this.filter.addEventListener("input", () => this.arrange());
    this.all.addEventListener("change", () => this.arrange());
    this.headings();
  }

  headings() {
    const cells = COLUMNS.map(([heading, by, , kind]) => {
      const sorted = by && this.sort.by === by ? (this.sort.down ? "descending" : "ascending") : null;
      const inside = by
        ? el("button", { type: "button", onclick: () => this.sortBy(by) }, heading)
        : heading;
      return el("th", { scope: "col", class: kind, "aria-sort": sorted }, inside);
    });
    this.table.tHead.replaceChildren(el("tr", {}, ...cells));
  }

  sortBy(by) {
    this.sort = { by, down: this.sort.by === by ? !this.sort.down : by !== "offer" };
    this.headings();
    this.arrange();
  }

  // `event` is a snapshot or a change of /v1/market/stream.
  take(event) {
    for (const offer of event.data.data) {
      const known = this.offers.get(offer.offer);
      this.offers.set(offer.offer, { bought: 0, prices: [], ...known, ...offer, ttfts: known?.ttfts || [] });
    }
    for (const offer of this.offers.values()) {
      offer.ttfts.push(offer.ttft_ms);
      if (offer.ttfts.length > KEPT) offer.ttfts.shift();
    }
    this.arrange();
    this.onCircuits([...this.offers.values()].filter((o) => o.health !== "closed"));
  }

  bought(shares) {
    for (const offer of this.offers.values()) offer.bought = shares.get(offer.offer) || 0;
    this.arrange();
  }

  // Output prices in order of time, from the report of price changes.
  prices(changes) {
    for (const offer of this.offers.values()) offer.prices = changes.get(offer.offer) || [];
  }

  arrange() {
    const { by, down } = this.sort;
    const wanted = this.filter.value.trim().toLowerCase();
    let shown = [...this.offers.values()].filter((o) => o.offer.toLowerCase().includes(wanted));
    const matching = shown.length;
    shown.sort((a, b) => {
      const order = a[by] < b[by] ? -1 : a[by] > b[by] ? 1 : a.offer < b.offer ? -1 : 1;
      return a[by] !== b[by] && down ? -order : order;
    });
    if (!this.all.checked) shown = shown.slice(0, SHOWN);
    document.querySelector("#n-offers").textContent = `${shown.length} of ${matching} offers`;
    const body = this.table.tBodies[0];
    const rows = shown.map((offer) => this.row(offer));
    if (rows.length !== body.rows.length || rows.some((row, i) => body.rows[i] !== row)) body.replaceChildren(...rows);
  }

  row(offer) {
    let row = this.rows.get(offer.offer);
    if (!row) {
      row = el("tr", {}, ...COLUMNS.map(([, , , kind]) => el("td", { class: kind })));
      row.cells[3].append(sparkline([offer.output_usd_per_mtok], `output price of ${offer.offer} over time`));
      row.cells[5].append(sparkline([offer.ttft_ms], `time to first token of ${offer.offer}, last minute`));
      this.rows.set(offer.offer, row);
    }
    COLUMNS.forEach(([, by, text], i) => {
      if (!text) return;
      const cell = row.cells[i], value = text(offer);
      if (cell.textContent === value) return;
      const known = cell.textContent !== "";
      cell.textContent = value;
      if (by === "health") cell.className = offer.health === "closed" ? "ok" : "bad";
      else if (known) {
        cell.classList.add("moved");
        setTimeout(() => cell.classList.remove("moved"), 60);
      }
    });
    drawSparkline(row.cells[3].firstChild, [...offer.prices, offer.output_usd_per_mtok]);
    drawSparkline(row.cells[5].firstChild, offer.ttfts);
    return row;
  }
}
