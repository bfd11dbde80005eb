// What the scripts of all status pages share. What other people choose (names, labels, titles) is added to a page as text only.

export const at = (id) => document.getElementById(id);

export function make(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function row(...cells) {
  const made = make("tr");
  made.append(...cells);
  return made;
}

// A number with its noun.
export const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

// A number of bytes, in words.
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit++; }
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

// A number of seconds, in words.
export function duration(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  return days ? `${days} d ${hours} h` : hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

// The time of day, or the date of what is more than a day old.
export function clock(when) {
  const date = new Date(when);
  const old = Date.now() - date > 86_400_000;
  const made = make("time", old ? date.toLocaleDateString("en-GB") : date.toLocaleTimeString("en-GB"), { datetime: when });
  made.title = date.toLocaleString("en-GB");
  return made;
}

// What a peer is sending now; empty if nothing.
export function sending(load) {
  if (!load.uploads && !load.upload_bytes_per_second) return "";
  return `${load.uploads} at ${size(load.upload_bytes_per_second)}/s`;
}

// Lists events ({at, peer, what}), the latest first, with the words for each kind.
export function showEvents(events, words, none) {
  const shown = [...events].reverse().map((event) => {
    const made = make("li", undefined, { class: event.what });
    const text = make("span");
    text.append(make("b", event.peer), ` ${words[event.what] ?? event.what}`);
    made.append(clock(event.at), text);
    return made;
  });
  at("event-list").replaceChildren(...(shown.length ? shown : [make("li", none, { class: "empty" })]));
}

// The line of facts in the header: [label, value, more about it].
export function showFacts(facts) {
  at("facts").replaceChildren(...facts.map(([label, value, detail]) => {
    const fact = make("div");
    if (detail) fact.title = detail;
    fact.append(make("dt", label), make("dd", value));
    return fact;
  }));
}

const collator = new Intl.Collator("en", { numeric: true });
// Orders by name, numbers in names by their value: peer-2 comes before peer-10.
export const byName = (a, b) => collator.compare(a.name, b.name);

export function connection(text, waiting) {
  at("connection").textContent = text;
  at("connection").classList.toggle("waiting", waiting);
}

// Calls `open` now and whenever the page becomes visible, and `close` when it is hidden: a hidden page makes no requests.
export function whileVisible(open, close) {
  let opened = false;
  const change = () => {
    if (document.hidden === !opened) return;
    opened = !document.hidden;
    if (opened) {
      open();
    } else {
      close();
      connection("paused", true);
    }
  };
  document.addEventListener("visibilitychange", change);
  at("live").hidden = false;
  change();
}
