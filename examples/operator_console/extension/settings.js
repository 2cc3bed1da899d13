// What the options page keeps, in this browser alone. Nothing about customers is ever kept.

export const DEFAULTS = {
  console: "http://127.0.0.1:8020",
  idSelector: "[data-customer-id]",
  idAttribute: "data-customer-id",
  emailSelector: "a[href^='mailto:']",
  emailAttribute: "href",
  ticket_sites: "",
};

export function load() {
  return chrome.storage.local.get(DEFAULTS);
}

/** The match pattern that stands for an address's host, all ports; throws a TypeError when it is no web address. */
export function pattern(address) {
  const url = new URL(address);
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new TypeError("not a web address");
  }
  return `${url.protocol}//${url.hostname}/*`;
}
