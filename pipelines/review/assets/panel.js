// The panel of a study: flags, structures, label maps, opinions and their Dice.

const byId = (id) => document.getElementById(id);
const make = (name, text, type) => Object.assign(document.createElement(name), { textContent: text ?? "", ...(type ? { className: type } : {}) });
const when = (seconds) => new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export const fill = (study, structure, hidden) => {
  byId("study").textContent = study.study.slice(0, 8);
  byId("name").textContent = study.name;
  byId("state").textContent = study.judgement.state;
  byId("state").className = `badge ${study.judgement.state}`;
  byId("state").title = study.judgement.why;
  const byCode = new Map();
  for (const flag of study.flags) byCode.set(flag.code, { ...flag, labels: [...(byCode.get(flag.code)?.labels ?? []), ...(flag.label ? [flag.label] : [])] });
  const flags = [...byCode.values()].map(({ words, meaning, labels }) => {
    const li = make("li", labels.length ? `${labels.join(", ")}: ${words}` : words);
    li.append(make("small", meaning));
    return li;
  });
  const notes = study.notes.map((note) => make("li", note));
  byId("flags").replaceChildren(...(flags.length + notes.length ? [...flags, ...notes] : [make("li", "No flag: nothing unlike the training cases", "none")]));
  structures(study, structure, hidden);
  opinions(study);
};

export const structures = (study, structure, hidden, volumes = study.volumes_ml) => {
  byId("structures").replaceChildren(...study.structures.map((one, n) => {
    const li = make("li"), colour = make("i"), see = make("button", hidden.has(one.value) ? "show" : "hide"), volume = volumes[one.name];
    colour.style.background = `rgb(${one.colour.join(" ")})`;
    li.className = one.value === structure ? "chosen" : "";
    li.dataset.value = one.value;
    li.title = n < 9 ? `Draw with this structure (${n + 1})` : "Draw with this structure";
    see.type = "button";
    see.dataset.see = one.value;
    see.setAttribute("aria-pressed", String(hidden.has(one.value)));
    see.setAttribute("aria-label", `${see.textContent} ${one.name}`);
    li.append(colour, make("span", one.name), make("small", volume === undefined ? "" : `${Number(volume.toPrecision(3))} ml`), see);
    return li;
  }));
};

export const maps = (study, chosen, isAlone) => {
  byId("map").replaceChildren(...study.maps.map((one) => new Option(one.name, one.id)));
  byId("map").value = chosen;
  const others = [...study.maps.filter((one) => one.id !== chosen), { id: "", name: "the image alone" }], before = byId("other-map").value;
  byId("other-map").replaceChildren(...others.map((one) => new Option(one.name, one.id)));
  if (isAlone || (before && others.some((one) => one.id === before))) byId("other-map").value = isAlone ? "" : before;
};

const opinions = (study) => {
  const drafts = study.corrections.map((one) => ({ made: one.made, who: one.author, what: `saved correction ${one.id}`, how: one.origin }));
  const said = study.opinions.map((one) => ({ made: one.made, who: one.author, what: one.verdict ? `${one.verdict} ${one.about}` : `on ${one.about}`, comment: one.comment }));
  const all = [...drafts, ...said].sort((a, b) => b.made - a.made);
  byId("opinions").replaceChildren(...(all.length ? all.map((one) => {
    const li = make("li", `${one.who} ${one.what}`);
    if (one.comment) li.append(make("q", one.comment));
    li.append(make("small", when(one.made) + (one.how && one.how !== "page" ? `, from ${one.how}` : "")));
    return li;
  }) : [make("li", "None yet", "quiet")]));
};

export const agreement = (pairs) => {
  byId("agreement").hidden = !pairs.length;
  byId("agreement").tBodies[0].replaceChildren(...pairs.flatMap((pair) => {
    const row = make("tr"), dice = Object.entries(pair.dice).filter(([, value]) => value !== null);
    const cell = make("td");
    cell.append(...dice.flatMap(([name, value]) => [document.createTextNode(`${name} ${value.toFixed(3)}`), document.createElement("br")]));
    row.append(make("td", `${pair.first} and ${pair.second}`), cell);
    return row;
  }));
};
