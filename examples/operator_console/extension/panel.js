// The side panel: reads an id or an e-mail address from the open page, asks the console, and shows the answer.
// Values are put on the page as text, never as HTML. Nothing is logged and nothing about customers is stored.

import { load, pattern } from "./settings.js";

const LONGEST = 320; // characters; more is no id and no e-mail address
const TIMEOUT = 10_000; // milliseconds

const shown = document.querySelector("#shown");
// A panel is about the active tab of its window; one that was opened as a page of its own, about the tab in its address.
const fixed = Number(new URLSearchParams(location.search).get("tab")) || null;

let looks = 0;
let shows = 0;
let current = ""; // the question that is shown or on its way: a tab that is activated again does not ask again

/** Runs in the page: the first id or e-mail address that one of the selectors finds. */
function readPage(places, longest) {
  for (const { kind, selector, attribute } of places) {
    let element = null;
    try {
      element = selector && document.querySelector(selector);
    } catch {
      return { broken: kind }; // no selector at all
    }
    if (element) {
      let text = (attribute ? element.getAttribute(attribute) : (element.value ?? element.textContent)) ?? "";
      if (kind === "email") {
        text = text.replace(/^\s*mailto:/i, "").split("?")[0];
      }
      text = text.trim();
      if (text && text.length <= longest) {
        return { kind, value: text };
      }
    }
  }
  return null;
}

async function target() {
  if (fixed) {
    return fixed;
  }
  const [tab] = await chrome.tabs.query({ active: true, currentWindow: true });
  return tab?.id;
}

async function read(tab, settings) {
  const places = [
    { kind: "id", selector: settings.idSelector, attribute: settings.idAttribute },
    { kind: "email", selector: settings.emailSelector, attribute: settings.emailAttribute },
  ];
  try {
    const [injected] = await chrome.scripting.executeScript({
      target: { tabId: tab },
      func: readPage,
      args: [places, LONGEST],
    });
    return { found: injected?.result ?? null };
  } catch {
    return { closed: true }; // a page of the browser's own, or one that nobody gave leave to read
  }
}

async function ask(settings, question) {
  const answer = await fetch(new URL("/panel/profile", settings.console), {
    method: "POST",
    // The operator's own session: the browser adds the console's cookie because the manifest names its host.
    credentials: "include",
    headers: { "content-type": "application/json", "x-console": "panel" },
    body: JSON.stringify(question),
    cache: "no-store",
    redirect: "error",
    signal: AbortSignal.timeout(TIMEOUT),
  });
  return { status: answer.status, body: await answer.json() };
}

async function look({ again = false } = {}) {
  const mine = ++looks;
  const settings = await load();
  const tab = await target();
  const { found, closed } = tab ? await read(tab, settings) : { closed: true };
  if (mine !== looks) {
    return; // a later look is under way
  }
  const key = found ? `${found.kind} ${found.value}` : "";
  if (key && !found.broken && !again && key === current) {
    return;
  }
  current = "";
  const turn = ++shows;
  if (closed) {
    say("Not read", "Click the extension's icon on the page to let it be read, or allow its site in the options.");
  } else if (!found) {
    say("No customer here", "The selectors of the options found neither an id nor an e-mail address on this page.");
  } else if (found.broken) {
    say("Wrong selector", `The selector for the ${found.broken} in the options is no CSS selector.`);
  } else {
    current = key;
    await show(turn, settings, found);
  }
}

async function show(turn, settings, question) {
  say("", "Asking the console …");
  let status = 0;
  let body = {};
  try {
    if (await chrome.permissions.contains({ origins: [pattern(settings.console)] })) {
      ({ status, body } = await ask(settings, question));
    } else {
      status = -1;
    }
  } catch {
    status = 0; // no connection, too late, or no JSON
  }
  if (turn !== shows) {
    return; // another question was asked meanwhile
  }
  if (status !== 200) {
    current = ""; // the next look asks again
  }
  if (status === 200 && body.found) {
    profile(settings, body);
  } else if (status === 200) {
    say("Nobody known", `There is no profile with the ${question.kind} on this page.`);
  } else if (status === 401) {
    say("Signed out", "Sign in to the console; then come back here.", link(settings, "/", "Open the console"));
  } else if (body.error === "change_password") {
    say("Choose a password", "Choose a password of your own first.", link(settings, "/password", "Open the console"));
  } else if (body.error === "not_allowed") {
    say("Not for your role", `Your role may not search by ${question.kind}.`);
  } else if (body.error === "several") {
    say("More than one", `More than one profile has this ${question.kind}.`, link(settings, "/", "Search in the console"));
  } else if (status === -1) {
    say("Not allowed yet", "Save the console's address in the options to let the panel ask it.");
  } else if (status === 503) {
    say("No profile now", "The Profile API does not answer. Try again in a moment.");
  } else {
    say("No console", "The console does not answer at the address in the options.");
  }
}

function profile(settings, body) {
  const fields = element("dl");
  for (const field of body.fields) {
    const row = element("div");
    row.append(element("dt", field.title), element("dd", field.text));
    row.lastChild.dataset.field = field.name;
    fields.append(row);
  }
  const parts = [element("h1", body.heading), fields];
  if (body.hidden) {
    parts.push(element("p", `${body.hidden} ${body.hidden === 1 ? "field is" : "fields are"} not for your role.`, "soft"));
  }
  const history = element("ol");
  for (const line of body.history) {
    const item = element("li");
    item.append(element("span", line.who), element("span", line.action, "tag"), element("time", line.at, "soft"));
    history.append(item);
  }
  parts.push(element("h2", "Views of this profile"), history);
  parts.push(link(settings, body.url, "Open in the console"), element("p", `${body.operator}, ${body.role}`, "soft"));
  shown.replaceChildren(...parts);
}

function say(title, text, more) {
  const parts = title ? [element("h1", title)] : [];
  parts.push(element("p", text));
  if (more) {
    parts.push(more);
  }
  shown.replaceChildren(...parts);
}

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function link(settings, path, text) {
  const made = element("a", text, "open");
  made.href = new URL(path, settings.console).href;
  made.target = "_blank";
  made.rel = "noopener";
  return made;
}

document.querySelector("#again").addEventListener("click", () => look({ again: true }));
document.querySelector("#options").addEventListener("click", () => chrome.runtime.openOptionsPage());
chrome.tabs.onActivated.addListener(() => look());
chrome.tabs.onUpdated.addListener(async (id, change) => {
  if (change.status === "complete" && id === (await target())) {
    look();
  }
});
chrome.runtime.onMessage.addListener((message) => {
  if (message === "clicked") {
    look();
  }
});
chrome.storage.onChanged.addListener(() => look({ again: true }));
window.addEventListener("focus", () => look());
look();
