// Polls /api/v1/status, and puts the changes into the page. All text is inserted as text, so
// nothing that an upstream sends can become markup.
"use strict";

const POLL_INTERVAL_MS = 2000;
const TIMEOUT_MS = 10000;

function write(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function newRow(row) {
  const line = document.createElement("tr");
  line.dataset.key = row.key;
  row.cells.forEach((_, column) => {
    const cell = document.createElement(column === 0 ? "th" : "td");
    if (column === 0) {
      cell.scope = "row";
    }
    line.append(cell);
  });
  return line;
}

// A row keeps its element as long as its key stays, so that a selection and the scroll position
// survive.
function fill(id, rows) {
  const table = document.getElementById(id);
  const body = table.tBodies[0];
  const old = new Map([...body.rows].map((line) => [line.dataset.key, line]));
  rows.forEach((row, place) => {
    const line = old.get(row.key) ?? newRow(row);
    old.delete(row.key);
    line.dataset.tone = row.tone;
    row.cells.forEach((text, column) => write(line.cells[column], text));
    if (body.rows[place] !== line) {
      body.insertBefore(line, body.rows[place] ?? null);
    }
  });
  old.forEach((line) => line.remove());
  table.closest("section").hidden = rows.length === 0;
}

function show(view) {
  const headline = document.getElementById("headline");
  headline.dataset.tone = view.tone;
  write(headline, view.headline);
  document.title = view.tone === "bad" ? "(!) cachewfsd" : "cachewfsd";
  write(document.getElementById("summary"), view.summary);
  view.tiles.forEach((tile, place) => {
    write(document.querySelectorAll("#tiles dd")[place], tile.text);
  });
  view.tables.forEach((table) => fill(table.id, table.rows));
}

async function refresh() {
  const silence = document.getElementById("silence");
  try {
    const answer = await fetch("/api/v1/status", {
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (!answer.ok) {
      throw new Error(`status ${answer.status}`);
    }
    show((await answer.json()).view);
    silence.hidden = true;
    document.body.dataset.live = "yes";
  } catch {
    silence.hidden = false;
  }
}

async function run() {
  if (!document.hidden) {
    await refresh();
  }
  setTimeout(run, POLL_INTERVAL_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    refresh();
  }
});
run();
