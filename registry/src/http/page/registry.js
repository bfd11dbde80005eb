// The live page of a registry.
import { at, byName, connection, count, duration, make, row, sending, showEvents, showFacts, whileVisible } from "./dom.js";

// Pause between two requests, in ms: a person takes it as live, and a hundred pages cost the registry little.
const PAUSE = 2_000;

// What is wrong with the store, by its state.
const STORE_NOTICES = {
  failing: "The store reports errors: registrations are refused until it works again. See the log of the registry.",
  hanging: "The store does not answer: registrations wait for it. See the log of the registry, and the disk.",
};

const CHANGES = { registered: "registered", left: "left, or its lease ran out" };

function show(status) {
  at("endpoint").textContent = location.host;
  showFacts([
    ["Peers", status.active_peers.toLocaleString("en")],
    ["Inactive", status.inactive_peers.toLocaleString("en"), "peers that left or whose lease ran out, kept for 30 days"],
    ["Observers", status.observers.toLocaleString("en"), "callers with a lease that only ask"],
    ["Swarms", `${status.swarms.toLocaleString("en")} with ${count(status.swarm_members, "member", "members")}`,
      "documents that peers fetch or hold together, and the peers in them"],
    ["Revision", status.revision.toLocaleString("en"), "the change counter: it grows with every change"],
    ["Lease", duration(parseFloat(status.ttl)), "how long a peer stays listed after its last keepalive"],
    ["Store", [
      status.store,
      status.unwritten ? `${count(status.unwritten, "change", "changes")} to write` : "",
      status.records_skipped ? `${count(status.records_skipped, "record", "records")} skipped` : "",
    ].filter(Boolean).join(", ")],
    ["Up", duration((Date.now() - Date.parse(status.started_at)) / 1000)],
    ["Version", status.version],
  ]);
  const notice = STORE_NOTICES[status.store];
  at("notice").textContent = notice ?? "";
  at("notice").hidden = !notice;

  const more = status.active_peers - status.peers.length;
  at("peer-count").textContent = status.active_peers.toLocaleString("en");
  at("peer-more").hidden = more <= 0;
  at("peer-more").textContent = `${count(more, "more peer is", "more peers are")} registered; p2pctl peers lists all.`;
  const peers = [...status.peers].sort(byName);
  at("peer-rows").replaceChildren(...(peers.length ? peers.map(peerRow) : [row(make("td", "No peer is registered.", { colspan: 7 }))]));
  showEvents(status.changes, CHANGES, "No peer has registered yet.");
}

function peerRow(peer) {
  const name = make("td");
  name.append(make("b", peer.name), make("small", peer.endpoint));
  const labels = Object.entries(peer.labels).map(([key, value]) => (value ? `${key}=${value}` : key));
  labels.sort();
  if (labels.length) name.append(make("small", labels.join(", "), { class: "narrow" }));
  const { load } = peer;
  const number = (text, more = "") => make("td", text, { class: `number ${more}` });
  const shown = (value) => (value === undefined ? "" : value.toLocaleString("en"));
  return row(
    name, make("td", labels.join(", "), { class: "wide" }), number(load ? shown(peer.documents) : ""), number(shown(load?.links)),
    number(load ? sending(load) : "", "wide"), number(load?.downloads ? shown(load.downloads) : "", "wide"),
    number(duration(peer.lease_remaining_seconds)),
  );
}

let timer, request;
async function poll() {
  clearTimeout(timer);
  const mine = (request = new AbortController());
  try {
    const answer = await fetch("/", { headers: { accept: "application/json" }, signal: mine.signal });
    if (!answer.ok) throw new Error(`the registry answered ${answer.status}`);
    show(await answer.json());
    connection("live", false);
  } catch (error) {
    if (mine.signal.aborted) return;
    connection("not connected", true);
    at("notice").textContent = `No answer: ${error.message}. What is shown may be old.`;
    at("notice").hidden = false;
  }
  timer = setTimeout(poll, PAUSE);
}

whileVisible(poll, () => {
  clearTimeout(timer);
  request?.abort();
});
