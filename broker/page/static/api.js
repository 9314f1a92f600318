// The public API, with the key of this tab. The key comes from the address's fragment, which
// browsers never send, or from the form; it is kept in sessionStorage and nowhere else.

let key = sessionStorage.getItem("key") || "";

export function takeKeyFromAddress() {
  const found = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!found) return;
  setKey(found);
  history.replaceState(null, "", location.pathname);
}

export function setKey(value) {
  key = value.trim();
  sessionStorage.setItem("key", key);
}

export const hasKey = () => key !== "";

export class ApiError extends Error {
  constructor(status, error) {
    super(error.message || `HTTP ${status}`);
    this.status = status;
    this.detail = error;
  }
}

const headers = () => ({ Authorization: `Bearer ${key}` });

async function checked(response) {
  if (response.ok) return response;
  let error = {};
  try { error = (await response.json()).error || {}; } catch { /* not ours */ }
  throw new ApiError(response.status, error);
}

export async function get(path, base = "") {
  return (await checked(await fetch(base + path, { headers: headers() }))).json();
}

export async function send(method, path, body, base = "", more = {}) {
  const response = await fetch(base + path, {
    method,
    headers: { ...headers(), "Content-Type": "application/json", ...more },
    body: JSON.stringify(body),
  });
  return (await checked(response)).json();
}

// A report as rows of plain objects.
export async function report(name, params = {}) {
  const query = new URLSearchParams(params).toString();
  const answer = await get(`/v1/reports/${name}${query ? "?" + query : ""}`);
  return answer.rows.map((row) => Object.fromEntries(row.map((v, i) => [answer.columns[i], v])));
}

// Server-sent events by fetch, because EventSource cannot send a key.
export async function* events(path) {
  const response = await checked(await fetch(path, { headers: headers() }));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const event = { kind: "message", data: "" };
      for (const line of part.split("\n")) {
        if (line.startsWith("event: ")) event.kind = line.slice(7);
        if (line.startsWith("data: ")) event.data += line.slice(6);
      }
      if (event.data) yield { kind: event.kind, data: JSON.parse(event.data) };
    }
  }
}
