// Swarms, jobs and mirrors of a peer, as tables. What other people choose (names, reasons) is added as text only.
import { at, count, make, row, size } from "./dom.js";

// Most failures named for a job or mirror.
const FAILURES = 3;

const JOB_STATES = {
  JOB_STATE_QUEUED: "queued", JOB_STATE_RUNNING: "running", JOB_STATE_WAITING: "waiting",
  JOB_STATE_DONE: "done", JOB_STATE_FAILED: "failed", JOB_STATE_CANCELLED: "cancelled",
};

const rate = (bytes) => (bytes ? `${size(bytes)}/s` : "");

// Not 100 before all is there.
const percent = (had, all, complete) => (complete ? 100 : Math.min(Math.floor(had * 100 / (all || 1)), 99));

// A cell with a bar and its number. `of`: what it is a part of, for screen readers.
function bar(value, of) {
  const cell = make("td", undefined, { class: "part" });
  cell.append(make("progress", undefined, { max: 100, value, "aria-label": of }), make("span", `${value} %`));
  return cell;
}

const isolated = (name) => make("bdi", name);

// Shows the card, and its parts, while there is something in them.
function unfold() {
  at("tasks").hidden = at("jobs").hidden && at("mirrors").hidden;
  at("transfers").hidden = at("tasks").hidden && at("swarms").hidden;
}

function rarest(swarm) {
  const copies = swarm.rarest_copies ? count(swarm.rarest_copies, "copy", "copies") : "no copy";
  return `${copies} of the rarest ${swarm.rarest_pieces === 1 ? "piece" : `${swarm.rarest_pieces.toLocaleString("en")} pieces`} of ${swarm.pieces.toLocaleString("en")}`;
}

function swarmRows(swarm) {
  const name = make("th", undefined, { scope: "rowgroup" });
  name.append(isolated(swarm.name), make("small", `${size(swarm.size)}, ${rarest(swarm)}`));
  if (swarm.waiting) name.append(make("small", swarm.waiting, { class: "waiting" }));
  const body = make("tbody");
  body.append(row(
    name, bar(percent(swarm.had, swarm.size, swarm.complete), `part of ${swarm.name} that is here`),
    make("td", rate(swarm.download_bytes_per_second), { class: "number" }),
    make("td", rate(swarm.upload_bytes_per_second), { class: "number" }),
  ));
  for (const connection of swarm.connections) {
    const { member } = connection;
    const peer = member?.peer?.name || member?.peer?.endpoint || "somebody";
    const cell = make("td", undefined, { class: "member" });
    cell.append(isolated(peer));
    const idle = parseFloat(connection.idle);
    if (idle >= 2) cell.append(make("small", `asked, last byte ${Math.floor(idle)} s ago`));
    body.append(row(
      cell, bar(percent(member?.had ?? 0, swarm.size, member?.complete), `part of ${swarm.name} that ${peer} has`),
      make("td", rate(connection.download_bytes_per_second), { class: "number" }),
      make("td", rate(connection.upload_bytes_per_second), { class: "number" }),
    ));
  }
  const more = swarm.connections_in_all - swarm.connections.length;
  if (more > 0) body.append(row(make("td", `and ${count(more, "more connection", "more connections")}`, { class: "member", colspan: 4 })));
  return body;
}

export function showSwarms({ swarms, swarms_in_all: all }) {
  at("swarms").hidden = all === 0;
  at("swarms").replaceChildren(at("swarms").tHead, ...swarms.map(swarmRows));
  const sum = (field) => swarms.reduce((total, swarm) => total + swarm[field], 0);
  at("transfer-counts").textContent = [
    all ? count(all, "document", "documents") + (all > swarms.length ? `, ${swarms.length} of them shown` : "") : "",
    rate(sum("download_bytes_per_second")) && `receiving ${rate(sum("download_bytes_per_second"))}`,
    rate(sum("upload_bytes_per_second")) && `sending ${rate(sum("upload_bytes_per_second"))}`,
  ].filter(Boolean).join(", ");
  unfold();
}

// Lines below a name: what it waits for, and what failed.
function details(detail, failed) {
  const lines = failed.slice(0, FAILURES).map(({ name, why }) => `failed: ${name}: ${why}`);
  if (failed.length > FAILURES) lines.push(`and ${count(failed.length - FAILURES, "more failure", "more failures")}`);
  return [detail, ...lines].filter(Boolean).map((line) => make("small", line, { class: "waiting" }));
}

export function showJobs({ jobs, jobs_in_all: all }) {
  at("jobs").hidden = all === 0;
  at("job-rows").replaceChildren(...jobs.map((job) => {
    const name = make("th", undefined, { scope: "row" });
    name.append(`${job.id}: `, isolated(job.wanted.join(" ")), ...details(job.detail, job.failed));
    const done = job.state === "JOB_STATE_DONE";
    return row(
      name, make("td", JOB_STATES[job.state] ?? "unknown", { class: "state" }),
      make("td", `${job.documents_done.toLocaleString("en")} of ${job.documents.toLocaleString("en")}`, { class: "number wide" }),
      bar(percent(job.bytes_done, job.bytes, done), `part of job ${job.id} that is done`),
      make("td", job.ended_at ? "" : rate(job.bytes_per_second), { class: "number wide" }),
    );
  }));
  at("job-more").hidden = all <= jobs.length;
  at("job-more").textContent = `and ${count(all - jobs.length, "more job", "more jobs")}`;
  unfold();
}

export function showMirrors(mirrors) {
  at("mirrors").hidden = mirrors.length === 0;
  at("mirror-rows").replaceChildren(...mirrors.map((mirror) => {
    const name = make("th", undefined, { scope: "row" });
    name.append(isolated(mirror.pattern), mirror.from ? ` from ${mirror.from}` : "", ...details(mirror.detail, mirror.failed));
    return row(
      name, make("td", mirror.present.toLocaleString("en"), { class: "number" }),
      make("td", mirror.missing.toLocaleString("en"), { class: "number" }),
      make("td", mirror.failed.length.toLocaleString("en"), { class: "number" }),
    );
  }));
  unfold();
}
