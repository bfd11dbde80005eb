// The live page of a peer. What other people choose (names, titles, messages) is added to the page as text only.
import { at, byName, clock, connection, count, duration, make, row, sending, showEvents, showFacts, size, whileVisible } from "./dom.js";
import { Drawing } from "./graph.js";
import { showJobs, showMirrors, showSwarms } from "./transfers.js";

// Pause before the next connection attempt after a refusal, in ms.
const RETRY = 5_000;
// Pause in typing after which a search starts, in ms.
const SEARCH_DELAY = 250;

const state = { peers: [], documents: "", picked: undefined };
const drawing = new Drawing(at("drawing"), pick);

const SESSION_STATES = {
  SESSION_STATE_NONE: "none", SESSION_STATE_REGISTERING: "registering", SESSION_STATE_REGISTERED: "registered",
  SESSION_STATE_UNREACHABLE: "does not answer", SESSION_STATE_REFUSED: "refused",
};

function showStatus(status) {
  state.status = status;
  at("name").textContent = status.name;
  at("endpoint").textContent = status.endpoint;
  showFacts([
    ["Registry", SESSION_STATES[status.registry?.state] ?? "none", status.registry?.detail],
    // As the table and the drawing have it: from the same moment.
    ["Links", `${state.peers.find((peer) => peer.self)?.links ?? status.mesh.links}`],
    ["Relayed", status.mesh.relayed.toLocaleString("en")],
    ["Sending", sending(status.load) || "nothing"],
    ["Fetching", status.load.downloads ? count(status.load.downloads, "document", "documents") : "nothing"],
    ["Up", duration((Date.now() - Date.parse(status.started_at)) / 1000)],
    ["Version", status.version],
  ]);
  const { received, dropped } = status.inbox;
  at("message-counts").textContent = count(received, "received", "received") + (dropped ? `, ${dropped.toLocaleString("en")} dropped` : "");
  const { documents, bytes, learned_documents: learned, pending, detail, version } = status.share;
  at("document-counts").textContent = detail || `${count(documents, "document", "documents")} here (${size(bytes)}), `
    + `${learned.toLocaleString("en")} known from other peers${pending ? `, ${pending.toLocaleString("en")} files being read` : ""}`;
  showMirrors(status.mirrors);
  const stamp = `${version} ${learned}`;
  if (stamp !== state.documents) {
    state.documents = stamp;
    find();
  }
}

function showNetwork(network) {
  state.peers = network.peers;
  const silent = network.peers.filter((peer) => peer.standing === "silent").length;
  at("counts").textContent = [
    count(network.peers.length, "peer", "peers"), count(network.links.length, "link", "links"),
    silent ? `${silent} not answering` : "",
    network.beyond ? `the nearest peers are shown, ${network.beyond.toLocaleString("en")} more are known` : "",
    network.asked ? "" : "asking the other peers",
  ].filter(Boolean).join(", ");
  drawing.show(network);
  const order = (peer) => (peer.self ? -1 : peer.hops ?? Infinity);
  const sorted = [...network.peers].sort((a, b) => order(a) - order(b) || byName(a, b));
  const focused = document.activeElement?.dataset?.id;
  at("peer-rows").replaceChildren(...sorted.map((peer) => {
    const button = make("button", peer.name, { type: "button", class: "peer", "aria-pressed": peer.id === state.picked });
    button.dataset.id = peer.id;
    button.addEventListener("click", () => pick(peer.id));
    const cell = make("td");
    cell.append(button, make("small", peer.endpoint + where(peer)));
    const known = peer.standing === "answers";
    const made = row(
      cell, make("td", peer.links, { class: "number" }),
      make("td", known ? peer.documents.toLocaleString("en") : "", { class: "number" }),
      make("td", known ? sending(peer.load) : "", { class: "number" }),
    );
    if (peer.self) made.classList.add("self");
    if (peer.standing === "silent") made.classList.add("silent");
    made.classList.toggle("picked", peer.id === state.picked);
    return made;
  }));
  if (focused) [...at("peer-rows").querySelectorAll("button")].find((button) => button.dataset.id === focused)?.focus();
  at("names").replaceChildren(...network.peers.filter((peer) => !peer.self).map((peer) => make("option", undefined, { value: peer.name })));
  at("peer-count").textContent = network.peers.length.toLocaleString("en") + (network.beyond ? ` of ${(network.peers.length + network.beyond).toLocaleString("en")}` : "");
  showEvents(network.events, EVENTS, "No events yet. Peers that join or leave while this page is open are listed here.");
  if (state.status) showStatus(state.status);
}

function where(peer) {
  if (peer.self) return ", this peer";
  if (peer.standing === "silent") return ", does not answer";
  if (peer.hops === null) return ", not reachable over links";
  return peer.hops === 1 ? ", linked" : `, ${peer.hops} links away`;
}

const EVENTS = {
  joined: "joined the network", left: "left the network", silent: "does not answer", back: "answers again",
  linked: "is linked to this peer", unlinked: "is no longer linked to this peer",
};

function showMessages(messages) {
  const shown = [...messages].reverse().map((message) => {
    const about = make("div", undefined, { class: "about" });
    const from = make("b");
    from.append(make("bdi", message.from || "somebody"));
    about.append(from, message.broadcast ? " to all" : " to this peer", message.kind === "text" ? "" : `, ${message.kind}`, " ", clock(message.at));
    const made = make("li");
    made.append(about, make("bdi", message.body, { class: "body" }));
    if (message.cut) made.append(make("small", `the first part of ${size(message.bytes)}`));
    return made;
  });
  at("message-list").replaceChildren(...(shown.length ? shown : [make("li", "No messages yet.", { class: "empty" })]));
}

function pick(id) {
  state.picked = state.picked === id ? undefined : id;
  drawing.pick(state.picked);
  const peer = state.peers.find((other) => other.id === state.picked);
  if (peer && !peer.self) at("to").value = peer.name;
  for (const button of at("peer-rows").querySelectorAll("button")) {
    const picked = button.dataset.id === state.picked;
    button.setAttribute("aria-pressed", picked);
    button.closest("tr").classList.toggle("picked", picked);
  }
}

// The error message of an answer.
async function refusal(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the peer answered ${answer.status}`;
  }
}

let search = 0;
async function find() {
  const mine = ++search;
  const answer = await fetch(`/documents?${new URLSearchParams({ find: at("find").value })}`, { headers: { accept: "application/json" } }).catch(() => undefined);
  if (mine !== search || !answer) return;
  if (!answer.ok) {
    at("document-more").textContent = await refusal(answer);
    at("document-more").hidden = false;
    return;
  }
  const { documents, more } = await answer.json();
  if (mine !== search) return;
  at("document-rows").replaceChildren(...documents.map((document) => {
    const others = document.holders_in_all - document.holders.length;
    const title = make("td");
    title.append(make("bdi", document.title || document.name));
    const name = make("td", undefined, { class: "name" });
    name.append(make("bdi", document.name));
    return row(
      make("td", document.number || "", { class: "number" }), title, name,
      make("td", size(document.size), { class: "number" }),
      make("td", document.holders.join(", ") + (others > 0 ? ` and ${others} more` : "")),
    );
  }));
  at("document-more").hidden = !more && documents.length > 0;
  at("document-more").textContent = documents.length === 0 ? "Nothing found." : `The first ${documents.length} are shown; search for others.`;
}

at("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [to, message, sent] = [at("to").value.trim(), at("body").value, at("sent")];
  const everybody = to === "";
  const button = at("send").querySelector("button");
  button.disabled = true;
  sent.classList.remove("failed");
  sent.textContent = "Sending";
  try {
    const answer = await fetch(everybody ? "/broadcast" : "/whisper", {
      method: "POST",
      headers: { accept: "application/json" },
      body: new URLSearchParams(everybody ? { message } : { name: to, message }),
    });
    if (!answer.ok) throw new Error(await refusal(answer));
    const done = await answer.json();
    sent.textContent = everybody
      ? `${done.acknowledged} of ${count(done.known, "known peer", "known peers")} ${done.acknowledged === 1 || done.known === 1 ? "has" : "have"} it${done.missing.length ? `; missing: ${done.missing.slice(0, 10).join(", ")}` : ""}`
      : `Delivered by ${done.delivered_by}${done.hops > 1 ? `, relayed by ${count(done.hops - 1, "other peer", "other peers")}` : ""}`;
    at("body").value = "";
  } catch (error) {
    sent.classList.add("failed");
    sent.textContent = `Not sent: ${error.message}`;
  }
  button.disabled = false;
});

let typing;
at("find").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(find, SEARCH_DELAY);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.picked) pick(state.picked);
});

let source, retry;
function open() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource("/live");
  const on = (name, show) => source.addEventListener(name, (event) => show(JSON.parse(event.data)));
  on("status", showStatus);
  on("network", showNetwork);
  on("messages", showMessages);
  on("swarms", showSwarms);
  on("jobs", showJobs);
  source.addEventListener("open", () => {
    connection("live", false);
    at("notice").hidden = true;
  });
  source.addEventListener("error", async () => {
    connection("not connected", true);
    // The browser reconnects after a broken stream, but not after a refused one, and it does not report the reason.
    if (source.readyState !== EventSource.CLOSED) return;
    retry = setTimeout(open, RETRY);
    const answer = await fetch("/network", { headers: { accept: "application/json" } }).catch(() => undefined);
    if (answer && !answer.ok) {
      at("notice").textContent = await refusal(answer);
      at("notice").hidden = false;
    }
  });
}

setInterval(() => state.status && source && showStatus(state.status), 10_000);

whileVisible(open, () => {
  clearTimeout(retry);
  source?.close();
  source = undefined;
});
