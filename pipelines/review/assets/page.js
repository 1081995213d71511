// The page: opens studies, connects tools, keys and views, keeps the hold, saves.
import * as api from "./api.js";
import { Drawing } from "./drawing.js";
import { geometryOf } from "./geometry.js";
import * as list from "./list.js";
import * as panel from "./panel.js";
import { SliceView } from "./slices.js";
import * as solid from "./solid.js";

const byId = (id) => document.getElementById(id);
const views = Object.fromEntries(["axial", "coronal", "sagittal"].map((name) =>
  [name, new SliceView(document.querySelector(`[data-plane=${name}] canvas`), name)]));
const other = new SliceView(document.querySelector("[data-plane=other] canvas"), "axial");
const HOLD_MS = 20000;
const page = {
  study: null, scene: null, drawing: null, map: "result", tool: "look", structure: 0, hidden: new Set(),
  focus: "axial", isMine: false, opening: 0, solid: false, isAlone: false,
};
window.review = { page, views, list }; // for tests and the console

const say = (text, isBad = false) => {
  byId("message").textContent = text;
  byId("message").className = `shown${isBad ? " bad" : ""}`;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { byId("message").className = ""; }, isBad ? 7000 : 2500);
};
const tried = (action) => (...given) => Promise.resolve().then(() => action(...given)).catch((error) => say(error.message, true));
const author = () => byId("author").value.trim();

// ---- drawing the page

let waiting = false;
const redraw = () => {
  if (waiting || !page.scene) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (!page.scene) return settle(); // another study is being opened
    for (const name of page.scene.geometry.used) if (views[name].canvas.offsetParent) views[name].draw(page.scene);
    if (other.canvas.offsetParent) {
      other.name = page.focus;
      Object.assign(other, { zoom: views[page.focus].zoom, shift: views[page.focus].shift });
      if (other.values) other.draw(page.scene);
    }
    settle();
  });
};
const redrawSolid = () => {
  clearTimeout(redrawSolid.timer);
  if (!page.solid || !page.drawing) return;
  redrawSolid.timer = setTimeout(tried(() =>
    solid.show(byId("solid-canvas"), page.drawing.values, page.scene.geometry, page.study, page.hidden)), 250);
};
const settle = () => {
  const drawing = page.drawing, isDrawable = Boolean(drawing) && page.isMine;
  byId("undo").disabled = !drawing?.past.length;
  byId("redo").disabled = !drawing?.future.length;
  byId("changed").textContent = drawing?.isChanged ? "Changes are not saved yet" : "";
  byId("save").disabled = !isDrawable || !drawing.isChanged;
  const isEarlier = /^[0-9a-f]{64}$/.test(page.map) && !drawing?.isChanged;
  for (const id of ["accept", "reject"]) byId(id).disabled = !isDrawable || isEarlier;
  byId("say").disabled = !isDrawable;
  byId("interpolate").disabled = !isDrawable;
  for (const button of document.querySelectorAll(".tool")) {
    button.classList.toggle("chosen", button.dataset.tool === page.tool);
    button.disabled = button.dataset.tool !== "look" && !isDrawable;
  }
  byId("views").classList.toggle("drawing", page.tool !== "look");
};
const paletteOf = (study) => {
  const packed = new Map(study.structures.map(({ value, colour: [r, g, b] }) => [value, (0xff000000 | (b << 16) | (g << 8) | r) >>> 0]));
  return (value) => (value === 0 || page.hidden.has(value) ? 0 : packed.get(value) ?? 0xffffffff);
};

// ---- opening studies

const refresh = async () => {
  list.fill(await api.studies());
  list.draw(page.study?.key ?? "");
};
const open = tried(async (key) => {
  if (page.drawing?.isChanged && !confirm("This study has changes that are not saved. Leave it?")) return;
  const turn = ++page.opening, left = page.study;
  document.body.classList.remove("menu");
  if (left && page.isMine && left.key !== key) api.release(left.key, author()).catch(() => {});
  page.isMine = false;
  page.study = page.scene = page.drawing = null;
  list.draw(key);
  settle();
  say("Loading…");
  const study = await api.study(key);
  const [image, values] = await Promise.all([api.image(key, 0), api.labels(key, newest(study))]);
  if (turn !== page.opening) return;
  Object.assign(page, { study, map: newest(study), hidden: new Set(), volumes: study.volumes_ml, structure: study.structures[0]?.value ?? 0 });
  const geometry = geometryOf(study);
  if (!geometry.used.includes(page.focus)) focus(geometry.used[0]);
  byId("views").classList.toggle("flat", geometry.used.length === 1);
  page.drawing = new Drawing(geometry, values);
  page.scene = { geometry, image, window: [...image.window], labels: values, palette: paletteOf(study), overlay: byId("overlay").checked,
    opacity: byId("opacity").value / 100, cursor: middleOf(values, geometry), smooth: true, crosshair: true };
  for (const view of Object.values(views)) Object.assign(view, { zoom: 1, shift: [0, 0] });
  focus(page.focus);
  panel.fill(study, page.structure, page.hidden);
  panel.maps(study, page.map, page.isAlone);
  byId("comment").value = "";
  say.timer && clearTimeout(say.timer);
  byId("message").className = "";
  await keepHold();
  await compareWith();
  changed();
  showAgreement(key);
  document.body.dataset.open = key;
});
// The last correction if there is one, else the result.
const newest = (study) => (study.corrections.length ? `c${study.corrections.at(-1).id}` : "result");
const showAgreement = async (key) => {
  panel.agreement([]);
  if (!page.study.corrections.length) return;
  const pairs = await api.agreement(key).catch(() => []);
  if (page.study?.key === key) panel.agreement(pairs);
};
const middleOf = (values, { shape, stride }) => {
  const sums = [0, 0, 0];
  let count = 0;
  for (let index = 0; index < values.length; index++) {
    if (!values[index]) continue;
    count++;
    for (const axis of [0, 1, 2]) sums[axis] += Math.floor(index / stride[axis]) % shape[axis];
  }
  return count ? sums.map((sum) => Math.round(sum / count)) : shape.map((length) => length >> 1);
};
const keepHold = async () => {
  const key = page.study?.key;
  if (!key) return;
  try {
    if (!author()) throw new Error("Enter your name under Reviewer to draw and to judge");
    await api.hold(key, author());
    if (page.study?.key === key) page.isMine = true;
    byId("held").hidden = true;
  } catch (error) {
    if (page.study?.key !== key) return;
    page.isMine = false;
    byId("held").hidden = false;
    byId("held").textContent = error.status === 409 ? `${error.message}. You can look, not change.` : error.message;
  }
  settle();
};
const loadMap = tried(async (id) => {
  if (page.drawing.isChanged && !confirm("Changes of this label map are not saved. Leave it?")) { byId("map").value = page.map; return; }
  page.map = id;
  const values = await api.labels(page.study.key, id);
  page.drawing = new Drawing(page.scene.geometry, values);
  page.scene.labels = values;
  panel.maps(page.study, id, page.isAlone);
  await compareWith();
  changed();
});
const compareWith = async () => {
  const id = byId("other-map").value;
  const isShown = byId("views").classList.contains("compare");
  other.values = !isShown ? null : id ? await api.labels(page.study.key, id) : new Uint16Array(page.scene.geometry.size);
  redraw();
};

// ---- judging

const reload = async (map) => {
  const key = page.study.key;
  page.study = await api.study(key);
  page.map = map ?? page.map;
  panel.fill(page.study, page.structure, page.hidden);
  panel.maps(page.study, page.map, page.isAlone);
  await refresh();
  showAgreement(key);
  settle();
};
const save = async () => {
  const version = page.drawing.version, key = page.study.key;
  const { id } = await api.save(key, page.drawing.values, author(), page.map);
  page.drawing.saved = version;
  await reload(`c${id}`);
  say(`Saved as correction ${id}`);
  document.body.dataset.saved = id;
  return id;
};
const judge = tried(async (verdict) => {
  if (!page.study || !page.isMine) return;
  if (page.drawing.isChanged) await save();
  const correction = page.map.startsWith("c") && page.map.length < 60 ? Number(page.map.slice(1)) : null;
  await api.say(page.study.key, { author: author(), verdict, comment: byId("comment").value, correction });
  byId("comment").value = "";
  await reload();
  say(verdict === "accepted" ? "Accepted" : verdict === "rejected" ? "Rejected" : "Comment saved");
  document.body.dataset.judged = verdict;
  if (verdict) go(1);
});
const go = (step) => {
  const rows = list.shown(), at = rows.findIndex((row) => row.key === page.study?.key);
  const next = rows[at + step] ?? (at < 0 ? rows[0] : null);
  if (next) open(next.key);
  else say(step > 0 ? "This is the last study of the list" : "This is the first study of the list");
};

// ---- tools

const choose = (tool) => { page.tool = page.isMine || tool === "look" ? tool : page.tool; settle(); };
const structure = (value) => { page.structure = value; showStructures(); };
const focus = (name) => {
  page.focus = name;
  for (const figure of document.querySelectorAll(".view")) figure.classList.toggle("focus", figure.dataset.plane === name);
  redraw();
};
const changed = () => { redraw(); redrawSolid(); measure(); };
const showStructures = () => panel.structures(page.study, page.structure, page.hidden, page.volumes);
// Volumes of what is drawn now, in ml.
const measure = () => {
  clearTimeout(measure.timer);
  measure.timer = setTimeout(() => {
    if (!page.drawing) return;
    const counts = new Uint32Array(65536), edge = page.scene.geometry.spacing;
    for (const value of page.drawing.values) counts[value]++;
    page.volumes = Object.fromEntries(page.study.structures.map(({ name, value }) => [name, (counts[value] * edge[0] * edge[1] * edge[2]) / 1000]));
    showStructures();
  }, 150);
};
const undo = () => page.drawing?.undo() && changed();
const redo = () => page.drawing?.redo() && changed();
const interpolate = () => {
  if (!page.drawing || !page.isMine) return;
  page.drawing.begin();
  const drawn = page.drawing.interpolate(page.scene.geometry.planes[page.focus], page.scene.cursor, page.structure);
  page.drawing.end();
  say(drawn ? `${drawn} voxels drawn between the slices` : "Draw this structure on two slices of this plane with empty ones between, and stop between them", !drawn);
  changed();
};
const stepSlice = (step, name = page.focus) => {
  if (!page.scene) return;
  const { through, depth } = page.scene.geometry.planes[name], cursor = page.scene.cursor;
  cursor[through.axis] = Math.max(0, Math.min(depth - 1, cursor[through.axis] + step * through.sign));
  redraw();
};
const setSize = (value) => {
  byId("size").value = value;
  byId("size-shown").textContent = byId("size").value;
};

// ---- pointer

const begin = (view, event) => {
  if (!page.scene) return null;
  const { geometry, cursor } = page.scene, voxel = view.voxelOf(event, geometry, cursor);
  const at = [event.clientX, event.clientY];
  if (event.button === 2) return { kind: "window", at, window: [...page.scene.window] };
  if (event.button === 1 || event.shiftKey) return { kind: "move", at, shift: [...view.shift] };
  if (page.tool === "look" || !page.isMine) return { kind: "look" };
  if (!voxel) return null;
  page.drawing.begin();
  const plane = geometry.planes[view.name];
  if (page.tool === "fill") page.drawing.fill(plane, voxel, page.structure);
  const [value, only] = page.tool === "eraser" ? [0, page.structure] : [page.structure, event.altKey ? undefined : 0];
  return { kind: page.tool, plane, last: voxel, value, only: page.tool === "eraser" && event.altKey ? undefined : only };
};
const drag = (view, event, stroke) => {
  const { scene } = page, voxel = view.voxelOf(event, scene.geometry, scene.cursor);
  if (stroke.kind === "window") {
    const range = stroke.window[1] - stroke.window[0], dx = (event.clientX - stroke.at[0]) / 250, dy = (event.clientY - stroke.at[1]) / 250;
    const width = range * Math.exp(dx), middle = (stroke.window[0] + stroke.window[1]) / 2 + dy * range;
    scene.window = [middle - width / 2, middle + width / 2];
  } else if (stroke.kind === "move") {
    const ratio = devicePixelRatio || 1;
    view.shift = [0, 1].map((n) => stroke.shift[n] + ([event.clientX, event.clientY][n] - stroke.at[n]) * ratio);
  } else if (stroke.kind === "look") {
    if (voxel) scene.cursor = voxel;
  } else if (voxel && stroke.kind !== "fill") {
    page.drawing.line(stroke.plane, stroke.last, voxel, Number(byId("size").value), stroke.value, stroke.only);
    stroke.last = voxel;
  }
  redraw();
};
for (const view of [...Object.values(views), other]) {
  let stroke = null;
  const { canvas } = view;
  canvas.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    document.activeElement?.blur();
    if (view !== other) focus(view.name);
    stroke = begin(view, event);
    if (stroke) { canvas.setPointerCapture(event.pointerId); drag(view, event, stroke); }
  });
  canvas.addEventListener("pointermove", (event) => { if (stroke) drag(view, event, stroke); });
  const end = () => {
    if (page.drawing?.open) { page.drawing.end(); changed(); }
    stroke = null;
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey) { view.zoom = Math.max(0.5, Math.min(20, view.zoom * Math.exp(-event.deltaY / 300))); redraw(); }
    else stepSlice(event.deltaY > 0 ? -1 : 1, view.name);
  }, { passive: false });
}

// ---- buttons and keys

const toggle = (id, state) => byId(id).setAttribute("aria-pressed", String(state));
const actions = {
  n: () => go(1), p: () => go(-1), a: () => judge("accepted"), r: () => judge("rejected"),
  c: () => byId("comment").focus(), b: () => choose("pen"), x: () => choose("eraser"), f: () => choose("fill"), v: () => choose("look"),
  z: undo, y: redo, i: interpolate, s: () => { if (!byId("save").disabled) tried(save)(); },
  o: () => { byId("overlay").checked = !byId("overlay").checked; byId("overlay").dispatchEvent(new Event("input")); },
  t: () => { page.solid = !page.solid; toggle("solid", page.solid); byId("solid-note").textContent = page.solid ? "Loading…" : "3D appears here: press T"; if (page.solid) redrawSolid(); },
  e: tried(async () => { toggle("compare", byId("views").classList.toggle("compare")); await compareWith(); }),
  "[": () => setSize(Number(byId("size").value) - 1), "]": () => setSize(Number(byId("size").value) + 1),
  ArrowUp: () => stepSlice(1), ArrowDown: () => stepSlice(-1), "?": () => byId("keys").showModal(),
};
for (let n = 1; n <= 9; n++) actions[n] = () => { const one = page.study?.structures[n - 1]; if (one) structure(one.value); };
for (const [id, key] of Object.entries({ undo: "z", redo: "y", interpolate: "i", save: "s", accept: "a", reject: "r", next: "n", solid: "t", compare: "e", help: "?" })) {
  byId(id).addEventListener("click", () => actions[key]());
}
for (const button of document.querySelectorAll(".tool")) button.addEventListener("click", () => choose(button.dataset.tool));
document.addEventListener("keydown", (event) => {
  if (byId("keys").open) return;
  if (event.target.matches("input:not([type=range], [type=checkbox]), textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    if (event.target.id === "comment" && event.key === "Enter" && (event.ctrlKey || event.metaKey)) judge("");
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const isCommand = event.ctrlKey || event.metaKey;
  if (event.altKey || !actions[key] || (isCommand && !["z", "y", "s"].includes(key))) return;
  event.preventDefault();
  (isCommand && key === "z" && event.shiftKey ? redo : actions[key])();
});
byId("say").addEventListener("click", () => judge(""));
byId("menu").addEventListener("click", () => document.body.classList.toggle("menu"));
byId("size").addEventListener("input", () => setSize(byId("size").value));
byId("overlay").addEventListener("input", () => { if (page.scene) { page.scene.overlay = byId("overlay").checked; redraw(); } });
byId("opacity").addEventListener("input", () => { if (page.scene) { page.scene.opacity = byId("opacity").value / 100; redraw(); } });
byId("map").addEventListener("input", () => loadMap(byId("map").value));
byId("other-map").addEventListener("input", tried(() => { page.isAlone = !byId("other-map").value; return compareWith(); }));
byId("structures").addEventListener("click", (event) => {
  const value = Number(event.target.dataset.see ?? event.target.closest("li")?.dataset.value ?? 0);
  if (!value) return;
  if (event.target.dataset.see) {
    if (!page.hidden.delete(value)) page.hidden.add(value);
    showStructures();
    changed();
  } else structure(value);
});
byId("author").addEventListener("change", tried(async () => { localStorage.setItem("author", author()); await keepHold(); }));
new ResizeObserver(redraw).observe(byId("views"));
addEventListener("beforeunload", (event) => { if (page.drawing?.isChanged) event.preventDefault(); });
addEventListener("pagehide", () => { if (page.study && page.isMine) api.release(page.study.key, author()).catch(() => {}); });
setInterval(() => { if (page.study) keepHold(); }, HOLD_MS);

tried(async () => {
  const archive = await api.archive();
  byId("archive").textContent = archive.name;
  byId("pages").hidden = !archive.pages.length;
  byId("pages").replaceChildren(...archive.pages.map(({ title, path }) => Object.assign(document.createElement("a"), { textContent: title, href: path })));
  byId("author").value = localStorage.getItem("author") || archive.author;
  list.start(open);
  await refresh();
  const first = list.shown().find((row) => row.state === "open") ?? list.shown()[0];
  if (first) await open(first.key);
  else say("This archive has no segmented study yet");
})();
