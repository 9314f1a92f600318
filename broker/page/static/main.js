// Start: a key, then live quotes; reports at their own pace, only while the page is looked at.

import { ApiError, events, hasKey, setKey, takeKeyFromAddress } from "/page/api.js";
import * as decisions from "/page/decisions.js";
import * as feeds from "/page/feeds.js";
import * as params from "/page/params.js";
import { Quotes } from "/page/quotes.js";
import * as reports from "/page/reports.js";

const status = document.querySelector("#status");
const login = document.querySelector("#login");
const quotes = new Quotes(reports.circuits);

function say(text, kind) {
  status.textContent = text;
  status.className = kind;
}

function askForKey(message = "") {
  document.querySelector("#login-error").textContent = message;
  if (!login.open) login.showModal();
}

login.addEventListener("close", () => {
  setKey(document.querySelector("#key").value);
  start();
});

async function follow() {
  for (;;) {
    try {
      for await (const event of events("/v1/market/stream")) {
        quotes.take(event);
        say(`live, view ${event.data.view}, params ${event.data.params_version}`, "live");
      }
      say("the stream ended; connecting again", "down");
    } catch (error) {
      if (error instanceof ApiError && (error.status === 401 || error.status === 403)) {
        say("not connected", "down");
        askForKey(error.message);
        return;
      }
      say(`connecting again: ${error.message}`, "down");
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

// Run now and then every `seconds` while the page is visible; a failure is said where it belongs.
const jobs = [];
function every(seconds, section, job) {
  const run = async () => {
    if (document.hidden) return;
    const place = document.querySelector(section);
    try {
      await job();
      place.querySelector(":scope > [role=alert]")?.remove();
    } catch (error) {
      let alert = place.querySelector(":scope > [role=alert]");
      if (!alert) {
        alert = document.createElement("p");
        alert.setAttribute("role", "alert");
        place.append(alert);
      }
      alert.textContent = error.message;
    }
  };
  jobs.push(setInterval(run, seconds * 1000));
  return run();
}

async function start() {
  if (!hasKey()) return askForKey();
  jobs.splice(0).forEach(clearInterval);
  follow();
  every(5, "#figures", () => reports.figures(quotes));
  every(10, "#market", () => reports.bought(quotes));
  every(10, "#spend", reports.spend);
  every(20, "#promises", reports.calibrations);
  every(60, "#seasons", reports.seasons);
  every(30, "#health", reports.incidents);
  every(5, "#feeds", feeds.load);
  every(3, "#decisions", decisions.recent);
  every(10, "#params", () => params.load());
}

document.querySelector("#period").addEventListener("change", () => reports.spend());
document.querySelector("#season-offer").addEventListener("change", () => reports.seasons());
document.querySelector("#all-feeds").addEventListener("change", () => feeds.load());
decisions.listen();
takeKeyFromAddress();
start();
