// The options: kept in this browser. Chrome itself asks whether the sites named here may be reached.

import { DEFAULTS, load, pattern } from "./settings.js";

const form = document.querySelector("#form");
const state = document.querySelector("#state");
const names = Object.keys(DEFAULTS);

function isSelector(text) {
  try {
    document.createDocumentFragment().querySelector(text);
    return true;
  } catch {
    return false;
  }
}

async function save() {
  const settings = Object.fromEntries(names.map((name) => [name, form.elements[name].value.trim()]));
  for (const name of ["idSelector", "emailSelector"]) {
    if (settings[name] && !isSelector(settings[name])) {
      state.textContent = "This is no CSS selector.";
      form.elements[name].focus();
      return;
    }
  }
  let origins = [];
  try {
    origins = [settings.console, ...settings.ticket_sites.split(/\s+/).filter(Boolean)].map(pattern);
  } catch {
    state.textContent = "An address begins with https:// or http://";
    return;
  }
  // First of all that waits: Chrome asks its user only right after a click.
  let granted = false;
  try {
    granted = await chrome.permissions.request({ origins });
  } catch {
    granted = false; // plain http:// on another machine is in no permission of the manifest
  }
  if (!granted) {
    state.textContent = "Not saved: Chrome may not reach these sites.";
    return;
  }
  await chrome.storage.local.set(settings);
  state.textContent = "Saved.";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  save();
});

for (const [name, value] of Object.entries(await load())) {
  form.elements[name].value = value;
}
