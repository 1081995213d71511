"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const lightbox = byId("lightbox");
  const enlarge = (source, text) => {
    lightbox.querySelector("img").src = source;
    lightbox.querySelector("img").alt = text;
    lightbox.querySelector("p").textContent = text;
    lightbox.showModal();
  };
  lightbox.addEventListener("click", (event) => {
    if (event.target === lightbox || event.target.closest(".close")) lightbox.close();
  });
  for (const button of document.querySelectorAll(".zoom")) {
    const image = button.querySelector("img");
    button.addEventListener("click", () => enlarge(image.src, image.alt));
  }

  const structures = byId("structures");
  if (structures) { // many rows a model: folded to the first ones, or to those that are searched for
    const find = byId("find-structure"), all = byId("all-structures");
    const open = Number(byId("comparison-table").dataset.open);
    const fold = () => {
      const text = find.value.trim().toLowerCase(), names = new Set();
      for (const body of byId("comparison-table").tBodies) {
        [...body.rows].slice(1).forEach((row, at) => {
          const name = row.querySelector(".label").textContent;
          row.hidden = text ? !name.toLowerCase().includes(text) : !all.checked && at >= open;
          if (!row.hidden) names.add(name);
        });
      }
      byId("structures-count").textContent = `${names.size} shown`;
    };
    for (const input of [find, all]) input.addEventListener("input", fold);
    structures.addEventListener("submit", (event) => event.preventDefault());
    structures.hidden = false;
    fold();
  }

  const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  let library = null; // the viewer's source is unpacked once, at the first use
  const loadLibrary = () => library ??= (async () => {
    const packed = new Blob([bytesOf(byId("niivue-source").textContent)]).stream();
    const script = document.createElement("script");
    script.textContent = await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
    document.head.append(script);
    return window.niivue;
  })();
  const palette = (colours, white) => { // label 0 is clear, label n has the n-th colour
    const part = (i) => [0, ...colours.map((rgb) => Math.round(rgb[i] + (255 - rgb[i]) * white))];
    return { R: part(0), G: part(1), B: part(2), A: [0, ...colours.map(() => 255)], I: [0, ...colours.map((_, i) => i + 1)] };
  };
  let scene = null;
  const openViewer = async (id) => {
    const dialog = byId("viewer"), item = JSON.parse(byId(id).textContent);
    dialog.querySelector("p").textContent = "Loading…";
    dialog.showModal();
    const { Niivue, NVImage } = await loadLibrary();
    if (!scene) {
      scene = new Niivue({ backColor: [0.04, 0.043, 0.055, 1], isRadiologicalConvention: true, loadingText: "",
        show3Dcrosshair: true, crosshairWidth: 0.2, crosshairColor: [0.6, 0.65, 0.7, 0.8] });
      await scene.attachToCanvas(dialog.querySelector("canvas"));
      scene.onLocationChange = (place) => { byId("where").textContent = place.string; };
      scene.opts.multiplanarShowRender = 1; // always
      scene.setMultiplanarLayout(2); // two by two
    }
    for (const old of [...scene.volumes]) scene.removeVolume(old);
    const layers = [["image", null], ["prediction", 0], ["reference", 0.62]];
    for (const [name, white] of layers) {
      if (!item[name]) continue;
      const volume = await NVImage.loadFromBase64({ base64: item[name], name: name + ".nii.gz", opacity: white === null ? 1 : 0.45 });
      if (white !== null) volume.setColormapLabel(palette(item.colours, white));
      scene.addVolume(volume);
    }
    byId("reference-layer").hidden = !item.reference;
    scene.opts.isOrientationTextVisible = item.oriented;
    scene.setSliceType(scene.sliceTypeMultiplanar);
    refresh();
    dialog.querySelector("p").textContent = item.caption;
    dialog.dataset.state = "ready";
  };
  const refresh = () => {
    for (const box of document.querySelectorAll("#viewer [data-layer]")) {
      const layer = Number(box.dataset.layer);
      if (scene && layer < scene.volumes.length) {
        scene.setOpacity(layer, box.checked ? (layer ? Number(byId("opacity").value) : 1) : 0);
      }
    }
  };
  if (byId("viewer")) {
    byId("viewer").addEventListener("input", refresh);
    byId("viewer").querySelector(".close").addEventListener("click", () => byId("viewer").close());
    for (const button of document.querySelectorAll(".view3d")) {
      button.hidden = false;
      button.addEventListener("click", () => openViewer(button.dataset.viewer).catch((error) => {
        byId("viewer").querySelector("p").textContent = "The viewer could not start: " + error.message;
      }));
    }
  }

  if (!byId("case-data")) return;
  const { columns, rows, pictures } = JSON.parse(byId("case-data").textContent);
  const table = byId("case-table"), body = table.tBodies[0], note = columns.length - 1;
  const STEP = 50;
  let shown = STEP, key = columns.indexOf("dice"), down = false, sorted = rows;

  const compare = (a, b) => {
    const x = a[key], y = b[key];
    if (x === null || y === null) return (x === null) - (y === null); // unscored rows stay last
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return down ? -order : order;
  };
  const cell = (text, name) => {
    const td = document.createElement("td");
    td.textContent = text;
    if (name) td.className = name;
    return td;
  };
  const toggle = (button, row, index) => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) return row.nextSibling.remove();
    const extra = document.createElement("tr"), td = cell("", "");
    const image = new Image();
    image.src = byId("picture-" + index).src;
    image.alt = "Overlay of " + button.dataset.name;
    extra.className = "shown";
    td.colSpan = columns.length;
    td.append(image);
    extra.append(td);
    row.after(extra);
  };
  const line = (values) => {
    const row = document.createElement("tr");
    values.forEach((value, i) => {
      if (i === note) return row.append(cell(value, value ? "flag" : ""));
      if (i < 3) return row.append(cell(value, ""));
      const digits = columns[i].endsWith("_mm") ? 2 : 3;
      row.append(cell(value === null ? "–" : value.toFixed(digits), "num"));
    });
    const index = pictures[values[0] + "\t" + values[1]];
    if (index !== undefined) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "look";
      button.textContent = "look";
      button.dataset.name = values[0] + ", " + values[1];
      button.setAttribute("aria-expanded", "false");
      button.setAttribute("aria-label", "Overlay of " + button.dataset.name);
      button.addEventListener("click", () => toggle(button, row, index));
      row.firstChild.append(button);
    }
    return row;
  };
  const draw = () => {
    const text = byId("find").value.trim().toLowerCase();
    const model = byId("by-model").value, label = byId("by-label").value, flagged = byId("flagged").checked;
    const kept = sorted.filter((row) =>
      (!text || row[0].toLowerCase().includes(text)) && (!model || row[1] === model) &&
      (!label || row[2] === label) && (!flagged || row[note]));
    body.replaceChildren(...kept.slice(0, shown).map(line));
    byId("count").textContent = `${Math.min(shown, kept.length)} of ${kept.length} rows`;
    byId("more").hidden = kept.length <= shown;
  };
  const restart = () => { shown = STEP; draw(); };

  for (const head of table.tHead.querySelectorAll("th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const chosen = columns.indexOf(head.dataset.key);
      down = chosen === key ? !down : false;
      key = chosen;
      sorted = [...rows].sort(compare);
      for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      restart();
    });
  }
  for (const id of ["find", "by-model", "by-label", "flagged"]) byId(id).addEventListener("input", restart);
  byId("more").addEventListener("click", () => { shown += 200; draw(); });
  document.querySelector(".filters").hidden = false;
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  draw();
})();
