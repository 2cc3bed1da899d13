// The entities page. The key is in `secret` alone: not in the document, the address, a cookie or the browser's storage.
const root = document.documentElement.dataset.root;
const base = location.origin + root;
const version = "2025-07-31";
const element = (id) => document.getElementById(id);
let secret = null;
let status = null;
let samples = [];
let timer = 0;

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "rect", "text", "polyline", "line", "title"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function headers(amperity = false) {
  const found = secret === null ? {} : { Authorization: `Bearer ${secret}` };
  return amperity ? { ...found, "amperity-tenant": status.workspace, "api-version": version } : found;
}

async function ask(path, amperity = false) {
  const began = performance.now();
  const response = await fetch(base + path, { headers: headers(amperity), cache: "no-store", credentials: "omit" });
  const text = await response.text();
  return { status: response.status, text, milliseconds: performance.now() - began };
}

function say(text, bad = false) {
  element("message").textContent = text;
  element("message").className = bad ? "bad" : "";
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

function age(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}

// --- the key ---------------------------------------------------------------------------------------------------------

async function open(first) {
  let answer;
  try { answer = await ask("/status"); } catch { return say("The server does not answer.", true); }
  if (answer.status === 401 && first) return;
  if (answer.status !== 200) {
    forget();
    return say(answer.status === 401 ? "This key is not valid." : `The server answers ${answer.status}.`, true);
  }
  status = JSON.parse(answer.text);
  element("forget").hidden = secret === null;
  element("content").hidden = false;
  say(status.collections.length ? "" : "This key sees no collection.");
  showCollections();
  showTraffic();
  clearInterval(timer);
  timer = setInterval(poll, 3000);
}

function forget() {
  secret = null;
  status = null;
  samples = [];
  clearInterval(timer);
  element("content").hidden = true;
  element("forget").hidden = true;
  for (const id of ["collections", "lookup-body", "snippet", "filter-body", "lookup-result", "filter-total", "filter-url", "conditions"]) element(id).replaceChildren();
}

element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  forget();
  secret = element("key").value.trim();
  element("key").value = "";
  open(false);
});
element("forget").addEventListener("click", () => { forget(); say("The key is forgotten."); });

// --- entities and indexes --------------------------------------------------------------------------------------------

function card(item) {
  const facts = [["Entity", String(item.id)], ["Record URL", `${base}/api/v1/entities/${item.id}/record?record_id=…`]];
  if (item.index_id) facts.push(["Index", item.index_id], ["Profiles URL", `${base}/api/indexes/${item.index_id}/profiles`]);
  if (item.key) facts.push(["Primary id", item.key]);
  facts.push(["Rows", item.rows.toLocaleString("en")], ["Updated", `${age(item.age_seconds)} ago`], ["Filterable", item.filterable.join(", ") || "no column"]);
  const list = make("dl");
  for (const [name, value] of facts) list.append(make("dt", {}, name), make("dd", {}, value));
  const rows = item.columns.map((column) => make("tr", {}, make("td", {}, column.name), make("td", {}, column.type)));
  const table = make("table", {},
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Column"), make("th", { scope: "col" }, "Type"))),
    make("tbody", {}, ...rows));
  const columns = make("details", rows.length <= 8 ? { open: "" } : {}, make("summary", {}, `${rows.length} columns`), table);
  return make("div", { class: "card" }, make("h3", {}, item.name), make("p", { class: "soft" }, item.description || ""), list, columns);
}

function showCollections() {
  element("collections").replaceChildren(...status.collections.map(card));
  const options = (items) => items.map((item) => make("option", { value: String(item.id) }, item.name));
  element("lookup-collection").replaceChildren(...options(status.collections));
  const indexes = status.collections.filter((item) => item.index_id);
  element("filter-collection").replaceChildren(...options(indexes));
  element("filter-section").hidden = !indexes.length;
  const refresh = status.refreshing;
  const text = refresh ? [
    `Refreshed every ${age(refresh.every)}`,
    refresh.running ? "refreshing now" : refresh.age == null ? "" : `last ${age(refresh.age)} ago`,
    refresh.last_error ? `the last refresh failed (${refresh.failures} in a row): ${refresh.last_error}` : "",
  ].filter(Boolean).join("; ") + "." : "";
  element("refreshing").textContent = text;
  element("refreshing").className = refresh && refresh.last_error ? "bad" : "soft";
  chooseDialects();
}

function chosen(id) {
  return status.collections.find((item) => String(item.id) === element(id).value);
}

function chooseDialects() {
  const item = chosen("lookup-collection");
  const amperity = element("lookup-dialect").options[1];
  amperity.disabled = !item || !item.index_id;
  if (amperity.disabled) element("lookup-dialect").value = "census";
}
element("lookup-collection").addEventListener("change", chooseDialects);

element("postman").addEventListener("click", async () => {
  const answer = await ask("/postman.json");
  if (answer.status !== 200) return say(`The server answers ${answer.status}.`, true);
  const collection = JSON.parse(answer.text);
  collection.variable.find((each) => each.key === "baseUrl").value = base;
  const blob = new Blob([JSON.stringify(collection, null, 2)], { type: "application/json" });
  const link = make("a", { href: URL.createObjectURL(blob), download: "profile-api.postman_collection.json" });
  link.click();
  URL.revokeObjectURL(link.href);
});

// --- look-up ---------------------------------------------------------------------------------------------------------

let request = null;

function snippet() {
  const language = element("snippet-language").value;
  const names = Object.entries(headers(request.amperity)).filter(([name]) => name !== "Authorization");
  const url = base + request.path;
  const keyed = secret !== null;
  if (language === "curl") {
    const lines = ["curl", ...(keyed ? ['-H "Authorization: Bearer $PROFILE_ENRICH_API_KEY"'] : []), ...names.map(([name, value]) => `-H '${name}: ${value}'`), `'${url.replaceAll("'", "%27")}'`];
    return lines.join(" \\\n  ");
  }
  const python = language === "python";
  const key = python ? `f"Bearer {os.environ['PROFILE_ENRICH_API_KEY']}"` : "`Bearer ${process.env.PROFILE_ENRICH_API_KEY}`";
  const fields = [...(keyed ? [`"Authorization": ${key}`] : []), ...names.map(([name, value]) => `"${name}": ${JSON.stringify(value)}`)];
  if (python) return `import os\n\nimport httpx\n\nheaders = {${fields.join(", ")}}\nresponse = httpx.get(${JSON.stringify(url)}, headers=headers)\nprint(response.status_code, response.json())`;
  return `const headers = {${fields.join(", ")}};\nconst response = await fetch(${JSON.stringify(url)}, { headers });\nconsole.log(response.status, await response.json());`;
}

function showSnippet() {
  if (!request) return;
  element("snippet").textContent = snippet();
  element("snippets").hidden = false;
}
element("snippet-language").addEventListener("change", showSnippet);

element("lookup").addEventListener("submit", async (event) => {
  event.preventDefault();
  const item = chosen("lookup-collection");
  const id = encodeURIComponent(element("lookup-id").value);
  const amperity = element("lookup-dialect").value === "amperity";
  request = { amperity, path: amperity ? `/api/indexes/${item.index_id}/profiles/${id}` : `/api/v1/entities/${item.id}/record?record_id=${id}` };
  const answer = await ask(request.path, amperity);
  element("lookup-result").textContent = `${answer.status} in ${answer.milliseconds.toFixed(1)} ms`;
  element("lookup-body").textContent = pretty(answer.text);
  element("lookup-body").hidden = false;
  showSnippet();
});

// --- filters ---------------------------------------------------------------------------------------------------------

let conditionNumber = 0;

function addCondition() {
  const item = chosen("filter-collection");
  if (!item || !item.filterable.length) return;
  conditionNumber += 1;
  const column = make("select", { id: `column-${conditionNumber}` }, ...item.filterable.map((name) => make("option", {}, name)));
  const value = make("input", { id: `value-${conditionNumber}`, autocomplete: "off", spellcheck: "false", required: "" });
  const remove = make("button", { type: "button", class: "quiet" }, "Remove");
  const row = make("div", { class: "condition" },
    make("span", {}, make("label", { for: column.id }, "Column"), column),
    make("span", {}, make("label", { for: value.id }, "Value"), value),
    make("span", {}, remove));
  remove.addEventListener("click", () => row.remove());
  element("conditions").append(row);
}
element("add-condition").addEventListener("click", addCondition);
element("filter-collection").addEventListener("change", () => element("conditions").replaceChildren());

element("filter").addEventListener("submit", async (event) => {
  event.preventDefault();
  const item = chosen("filter-collection");
  const parameters = [["limit", "10"], ["with_total", "true"]];
  for (const row of element("conditions").children) parameters.push([`filter[${row.querySelector("select").value}]`, row.querySelector("input").value]);
  const path = `/api/indexes/${item.index_id}/profiles?${parameters.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join("&")}`;
  const answer = await ask(path, true);
  element("filter-url").textContent = base + path;
  element("filter-body").hidden = false;
  element("filter-body").textContent = pretty(answer.text);
  if (answer.status === 200) {
    const total = JSON.parse(answer.text).total;
    element("filter-total").textContent = `${total.toLocaleString("en")} of ${item.rows.toLocaleString("en")} profiles, in ${answer.milliseconds.toFixed(1)} ms`;
  } else element("filter-total").textContent = `The server answers ${answer.status}.`;
});

// --- charts ----------------------------------------------------------------------------------------------------------

const sum = (values) => values.reduce((total, value) => total + value, 0);

async function poll() {
  if (document.hidden) return;
  try {
    const answer = await ask("/status");
    if (answer.status === 401) { forget(); return say("This key is not valid any more.", true); }
    if (answer.status === 200) { status = JSON.parse(answer.text); showTraffic(); }
  } catch { say("The server does not answer.", true); }
}

function bars(rows, label) {
  if (!rows.length) return make("p", { class: "soft" }, "No requests yet.");
  const most = Math.max(...rows.map(([, count]) => count), 1);
  const svg = make("svg", { viewBox: `0 0 320 ${rows.length * 34}`, role: "img", "aria-label": `${label}: ${rows.map(([name, count]) => `${name} ${count}`).join(", ")}` });
  rows.forEach(([name, count], place) => svg.append(
    make("text", { x: 0, y: place * 34 + 12 }, name),
    make("text", { x: 320, y: place * 34 + 12, "text-anchor": "end" }, count.toLocaleString("en")),
    make("rect", { class: "mark", x: 0, y: place * 34 + 17, width: Math.max(1, 320 * count / most), height: 8, rx: 2 })));
  return svg;
}

function showTraffic() {
  const total = sum(Object.values(status.requests));
  samples.push([performance.now(), total]);
  samples = samples.slice(-60);
  element("rate-chart").replaceChildren(rates());
  const sorted = (counts) => Object.entries(counts).sort((one, other) => other[1] - one[1]);
  element("kind-chart").replaceChildren(bars(sorted(status.requests).slice(0, 8), "Requests by kind"));
  element("status-chart").replaceChildren(bars(sorted(status.responses), "Answers by status"));
  const { up_to_seconds: ends, counts } = status.latency;
  const names = [...ends.map((end) => `up to ${end * 1000} ms`), `over ${ends[ends.length - 1] * 1000} ms`];
  const rows = names.map((name, place) => [name, sum(Object.values(counts).map((each) => each[place]))]);
  element("latency-chart").replaceChildren(bars(rows.filter(([, count]) => count), "Requests by time in the server"));
}

function rates() {
  const speeds = samples.slice(1).map(([at, total], place) => Math.max(0, (total - samples[place][1]) / (at - samples[place][0]) * 1000));
  if (!speeds.length) return make("p", { class: "soft" }, "In some seconds.");
  const most = Math.max(...speeds, 1);
  const last = speeds[speeds.length - 1].toFixed(1);
  const points = speeds.map((speed, place) => `${320 * (place + 1) / speeds.length},${78 - 66 * speed / most}`);
  return make("svg", { viewBox: "0 0 320 98", role: "img", "aria-label": `Requests a second: ${last} now, at most ${most.toFixed(1)}` },
    make("line", { class: "axis", x1: 0, x2: 320, y1: 80, y2: 80 }),
    make("polyline", { class: "trend", points: [`0,${points[0].split(",")[1]}`, ...points].join(" ") }),
    make("text", { x: 0, y: 95 }, `${last} now`),
    make("text", { x: 320, y: 95, "text-anchor": "end" }, `at most ${most.toFixed(1)}`));
}

open(true);
