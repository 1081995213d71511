// The list of studies, the worst first, with its filters.

const byId = (id) => document.getElementById(id);
const STEP = 300;
let rows = [], kept = [], most = STEP;

const textOf = (row) => `${row.study} ${row.name} ${row.flags.map((f) => `${f.label} ${f.words}`).join(" ")}`.toLowerCase();

export const shown = () => kept;

export const start = (choose) => {
  for (const id of ["find", "by-state", "by-flag"]) byId(id).addEventListener("input", () => { most = STEP; draw(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("studies").addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (item) choose(item.dataset.key);
  });
  byId("studies").addEventListener("scroll", ({ target }) => {
    if (target.scrollTop + target.clientHeight > target.scrollHeight - 200 && most < kept.length) { most += STEP; draw(); }
  });
};

export const fill = (studies) => {
  rows = studies.map((row) => ({ ...row, text: textOf(row) }));
  const chosen = byId("by-flag").value, codes = new Map();
  for (const row of rows) for (const flag of row.flags) codes.set(flag.code, flag.words);
  byId("by-flag").replaceChildren(new Option("All flags", ""), new Option("Without flags", "-"),
    ...[...codes].sort().map(([code, words]) => new Option(words, code)));
  byId("by-flag").value = chosen;
  draw();
};

export const draw = (current) => {
  if (current !== undefined) byId("studies").dataset.current = current;
  const text = byId("find").value.trim().toLowerCase(), state = byId("by-state").value, flag = byId("by-flag").value;
  const now = byId("studies").dataset.current;
  kept = rows.filter((row) => (!text || row.text.includes(text)) && (!state || row.state === state) &&
    (!flag || (flag === "-" ? !row.flags.length : row.flags.some((f) => f.code === flag))));
  byId("studies").replaceChildren(...kept.slice(0, most).map((row) => item(row, row.key === now)));
  byId("studies").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  const done = rows.filter((row) => row.state !== "open").length;
  byId("progress").textContent = `${done} of ${rows.length} judged`;
  byId("count").textContent = kept.length === rows.length ? "" : `${kept.length} of ${rows.length} studies`;
};

const item = (row, isCurrent) => {
  const li = document.createElement("li"), line = document.createElement("div");
  li.dataset.key = row.key;
  if (isCurrent) li.setAttribute("aria-current", "true");
  line.className = "line";
  const dot = document.createElement("i"), name = document.createElement("b"), note = document.createElement("small");
  dot.className = `dot ${row.state}`;
  dot.title = row.state;
  name.textContent = row.name;
  name.title = `study ${row.study}`;
  line.append(dot, name);
  if (row.corrections) line.append(Object.assign(document.createElement("small"), { textContent: `✎ ${row.corrections}` }));
  note.textContent = row.held ? `open at ${row.held}` : row.flags.map((f) => `${f.label}: ${f.words}`).join("; ") || "no flags";
  note.title = note.textContent;
  li.append(line, note);
  return li;
};
