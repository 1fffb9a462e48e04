"use strict";
// What the report answers on a click: tables sort, curves tell their values, a slider counts errors anew, frames open.
// The page is complete without: what needs the script is hidden until it runs. Texts from outside are only ever set as
// text, never as markup.
(() => {
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, values = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), values);
  element.append(...children);
  return element;
};
const count = (n, one, many = one + "s") => `${n} ${n === 1 ? one : many}`;

// --- tables ----------------------------------------------------------------------------------------------------------

// The number in a cell: its last one, without marks, intervals and units; of a cell with a mark alone that of the mark.
const number = (cell) => {
  const copy = cell.cloneNode(true);
  if (copy.textContent.trim() !== $$(".chip", copy).map((e) => e.textContent).join("").trim()) {
    $$(".chip", copy).forEach((e) => e.remove());
  }
  $$(".range, .aside, .unit", copy).forEach((e) => e.remove());
  const found = copy.textContent.replace(/[\u202f,]/g, "").replace(/−/g, "-").replace(/ of \d+/g, "").match(/-?\d+(\.\d+)?/g);
  return found ? Number(found.at(-1)) : null;
};

const sortable = (table) => {
  const heads = $$("thead th", table);
  const bodies = [...table.tBodies];
  const original = bodies.map((body) => [...body.rows]);
  const rows = original.flat().filter((row) => !row.classList.contains("group"));
  if (rows.length < 2) return;
  // a row that leaves its group says from where it is
  bodies.forEach((body) => {
    const group = $(".group span", body);
    if (!group) return;
    [...body.rows].filter((row) => row.cells.length > 1).forEach((row) => {
      row.cells[0].append(make("span", { className: "unit from", textContent: group.textContent }));
    });
  });
  const sort = (column, direction) => {
    $(".sorted", table)?.remove();
    if (!direction) {
      bodies.forEach((body, i) => { body.append(...original[i]); table.append(body); });
      return;
    }
    const keys = new Map(rows.map((row) => {
      const cell = row.cells[column];
      return [row, column ? number(cell) ?? cell.textContent.trim() : cell.textContent.trim()];
    }));
    const order = (a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      const numbers = [x, y].filter((key) => typeof key === "number").length;
      // cells without a number come last in either direction
      if (numbers === 1) return typeof x === "number" ? -1 : 1;
      return direction * (numbers ? x - y : x.localeCompare(y));
    };
    bodies.forEach((body) => body.remove());
    const body = make("tbody", { className: "sorted" });
    body.append(...[...rows].sort(order));
    table.append(body);
  };
  heads.forEach((head, column) => {
    const [title, unit] = [head.firstChild, $(".unit", head)];
    const button = make("button", { type: "button", className: "sort", textContent: title.textContent });
    title.replaceWith(button);
    button.append(make("span", { className: "way" }), unit ?? "");
    button.addEventListener("click", () => {
      const next = { ascending: -1, descending: 0 }[head.ariaSort] ?? 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.ariaSort = next > 0 ? "ascending" : "descending";
      sort(column, next);
    });
  });
};

// --- curves ----------------------------------------------------------------------------------------------------------

const interactive = (svg, values) => {
  const told = make("div", { className: "told", hidden: true });
  const marks = values.lines.map((line) => {
    const mark = document.createElementNS(svg.namespaceURI, "circle");
    for (const [name, value] of [["r", 3.5], ["fill", line.colour], ["stroke", "white"], ["visibility", "hidden"]]) {
      mark.setAttribute(name, value);
    }
    svg.append(mark);
    return mark;
  });
  const isShown = values.lines.map(() => true);
  const place = values.lines.map(() => 0);
  const hide = () => { told.hidden = true; marks.forEach((mark) => mark.setAttribute("visibility", "hidden")); };
  const tell = () => {
    const lines = values.lines.map((line, i) => {
      const point = line.points[place[i]];
      const visible = isShown[i] && point;
      marks[i].setAttribute("visibility", visible ? "visible" : "hidden");
      if (!visible) return null;
      marks[i].setAttribute("cx", point[0]);
      marks[i].setAttribute("cy", point[1]);
      const texts = point.slice(2).map((v, k) => `${values.names[k]} ${v ?? "∞"}`);
      return make("p", {}, make("b", { textContent: line.name, style: `color: ${line.colour}` }), " ", texts.join(", "));
    });
    told.replaceChildren(...lines.filter(Boolean));
    told.hidden = !lines.some(Boolean);
  };
  svg.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const distance = (point) => Math.hypot(point[0] - at.x, point[1] - at.y);
    values.lines.forEach((line, i) => {
      line.points.forEach((point, k) => { if (distance(point) < distance(line.points[place[i]])) place[i] = k; });
    });
    tell();
  });
  svg.addEventListener("pointerleave", hide);
  // by keyboard: along all lines at once
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    values.lines.forEach((line, i) => { place[i] = Math.min(Math.max(place[i] + step, 0), line.points.length - 1); });
    tell();
  });
  const legend = values.lines.map((line, i) => {
    const button = make("button", { type: "button", className: "entry", ariaPressed: "true" },
      make("span", { className: "swatch", style: `background: ${line.colour}` }), line.name);
    button.addEventListener("click", () => {
      isShown[i] = !isShown[i];
      button.ariaPressed = String(isShown[i]);
      line.ids.forEach((id) => { document.getElementById(id).style.display = isShown[i] ? "" : "none"; });
      hide();
    });
    return button;
  });
  svg.after(told, make("div", { className: "entries" }, ...legend));
};

// --- segments of an evaluation ---------------------------------------------------------------------------------------

// numbers per frame -> where each frame's rows begin, and the end
const starts = (counts) => {
  const sums = [0];
  counts.forEach((n) => sums.push(sums.at(-1) + n));
  return sums;
};

class Cell {
  constructor(values) {
    Object.assign(this, values);
    this.firstSegment = starts(values.counts);
    this.firstObject = starts(values.objects);
  }
  isKept(segment, point) { return this.segments[segment] >> 1 <= point; }
  isFalse(segment) { return (this.segments[segment] & 1) === 1; }
  // errors in one frame, or in all of them
  errors(point, frame = null) {
    const [begin, end] = frame === null ? [0, this.segments.length] : this.firstSegment.slice(frame, frame + 2);
    const [first, last] = frame === null ? [0, this.found.length] : this.firstObject.slice(frame, frame + 2);
    const errors = { falseKept: 0, trueRemoved: 0, missed: 0, found: 0, largestMissed: 0, smallestFound: Infinity, sizes: this.sizes.slice(first, last) };
    for (let i = begin; i < end; i++) {
      if (this.isFalse(i)) errors.falseKept += this.isKept(i, point); else errors.trueRemoved += !this.isKept(i, point);
    }
    for (let i = first; i < last; i++) {
      if (this.found[i] <= point) {
        errors.found++;
        errors.smallestFound = Math.min(errors.smallestFound, this.sizes[i]);
      } else {
        errors.missed++;
        errors.largestMissed = Math.max(errors.largestMissed, this.sizes[i]);
      }
    }
    return errors;
  }
  alarms(point) {
    let alarms = 0;
    for (let f = 0; f < this.counts.length; f++) {
      let i = this.firstSegment[f];
      const end = this.firstSegment[f + 1];
      while (i < end && !(this.isFalse(i) && this.isKept(i, point))) i++;
      alarms += i < end;
    }
    return alarms;
  }
}

// --- operating point -------------------------------------------------------------------------------------------------

const probability = (p) => (p <= 0 ? "0" : p >= 1 ? "1" : p < 0.001 || p > 0.999 ? p.toPrecision(p > 0.5 ? 6 : 3) : p.toFixed(3));

const explore = (data, thumbnails) => {
  const cells = data.cells.map((values) => new Cell(values));
  const slider = $("#point");
  let chosen = null;  // position of the slider; null: of each evaluation its own
  const pointOf = (cell) => chosen ?? cell.own;
  const listeners = [];
  const recount = () => {
    const p = chosen === null ? null : data.points[chosen];
    $("#point-value").textContent = p === null ? "as evaluated, each at its own"
      : p < 0 ? "nothing is kept" : `P(false) above ${probability(p)} (severity below ${p > 0 ? (-Math.log(p)).toPrecision(3) : "∞"})`;
    slider.setAttribute("aria-valuetext", $("#point-value").textContent);
    $$("#recount [data-cell]").forEach((row) => {
      const cell = cells[row.dataset.cell];
      const errors = cell.errors(pointOf(cell));
      const numbers = [errors.falseKept, errors.missed, errors.trueRemoved, cell.alarms(pointOf(cell))];
      $$("[data-now]", row).forEach((place, k) => { place.textContent = numbers[k]; });
    });
    listeners.forEach((listener) => listener());
  };
  slider.max = data.points.length - 1;
  slider.value = cells[0].own;
  slider.addEventListener("input", () => { chosen = Number(slider.value); recount(); });
  $("#own").addEventListener("click", () => { chosen = null; slider.value = cells[0].own; recount(); });
  $$("#recount [data-cell] button").forEach((button) => button.addEventListener("click", () => {
    slider.value = chosen = cells[button.closest("[data-cell]").dataset.cell].own;
    recount();
  }));
  listeners.push(browse(data, thumbnails, cells, pointOf));
  recount();
};

// --- frames ----------------------------------------------------------------------------------------------------------

const FILLS = { kept: [255, 122, 0], removed: [46, 134, 222], chosen: [255, 255, 255] };
const KINDS = {
  missed: [(e) => e.missed > 0, (e) => -e.largestMissed],
  alarms: [(e) => e.falseKept > 0, (e) => -e.falseKept],
  found: [(e) => e.found > 0, (e) => e.smallestFound],
  random: [(e, frame) => frame.drawn >= 0, (e, frame) => frame.drawn],
  all: [() => true, (e, frame) => frame.place],
};

const browse = (data, thumbnails, cells, pointOf) => {
  const [filters, list, viewer] = [$("#filters"), $("#frames-list"), $("#viewer")];
  const [layers, stage, panel] = [$(".layers", viewer), $(".stage", viewer), $("#segments-list")];
  let cell, shown = [], at = 0, segment = null, zoom = 1, shift = [0, 0], isDrawn = true;
  const value = (name) => filters.elements[name].value;
  const frames = data.sets.map((set) => set.frames.map(([index, id, rows, columns], place) =>
    ({ index, id, rows, columns, place, drawn: set.random.indexOf(index) })));
  const image = (frame) => `data:image/webp;base64,${thumbnails[cell.set][frame.place]}`;
  const title = (e) => [count(e.missed, "object") + " missed", `${e.found} found`, count(e.falseKept, "false alarm")].join(" · ");

  // segments of a frame over its image, as they are at the operating point
  const draw = (canvas, frame, picked = null) => {
    [canvas.width, canvas.height] = [frame.columns, frame.rows];
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(frame.columns, frame.rows);
    const [runs, first] = [cell.details[frame.place].runs, cell.firstSegment[frame.index]];
    const labels = new Int32Array(frame.rows * frame.columns);
    for (let k = 0, place = 0; k < runs.length; k += 3) {
      place += runs[k];
      labels.fill(runs[k + 2], place, place + runs[k + 1]);
      place += runs[k + 1];
    }
    labels.forEach((label, i) => {
      if (!label) return;
      const kept = cell.isKept(first + label - 1, pointOf(cell));
      const isPicked = label - 1 === picked;
      // removed ones are hatched: not by colour alone
      const gap = !kept && !isPicked && ((i % frame.columns) + Math.floor(i / frame.columns)) % 4 > 1;
      pixels.data.set([...FILLS[isPicked ? "chosen" : kept ? "kept" : "removed"], gap ? 70 : 200], 4 * i);
    });
    context.putImageData(pixels, 0, 0);
    const begin = cell.firstObject[frame.index];
    cell.details[frame.place].boxes.forEach(([top, left, bottom, right], k) => {
      if (top < 0) return;
      context.strokeStyle = "white";
      context.setLineDash(cell.found[begin + k] <= pointOf(cell) ? [] : [4, 3]);  // dashed: missed
      context.strokeRect(left - 1.5, top - 1.5, right - left + 3, bottom - top + 3);
    });
    return labels;
  };

  const select = () => {
    cell = cells.find((one) => one.set === Number(value("set")) && one.network === value("network") && one.variant === value("variant"));
    const [holds, rank] = KINDS[value("kind")];
    const [least, most] = value("size").split("-").map(Number);
    const known = frames[Number(value("set"))].map((frame) => ({ frame, errors: cell?.errors(pointOf(cell), frame.index) }));
    shown = known.filter(({ frame, errors }) => errors && holds(errors, frame)
      && (value("size") === "any" || errors.sizes.some((size) => size >= least && size < most)));
    shown.sort((a, b) => rank(a.errors, a.frame) - rank(b.errors, b.frame) || a.frame.place - b.frame.place);
    const all = cell ? cell.counts.length : 0;
    $("#frames-count").textContent = `${count(shown.length, "frame")} of ${frames[Number(value("set"))].length} shown here, of ${all} in the set`;
    list.replaceChildren(...shown.map(({ frame, errors }, i) => {
      const canvas = make("canvas");
      draw(canvas, frame);
      const picture = make("img", { src: image(frame), alt: "", width: frame.columns, height: frame.rows });
      const button = make("button", { type: "button" }, make("span", { className: "layers" }, picture, canvas),
        make("span", { className: "id", textContent: frame.id }), make("span", { className: "soft", textContent: title(errors) }));
      button.addEventListener("click", () => open(i));
      return make("li", {}, button);
    }));
    if (viewer.open) {
      // the frame in view stays, also where the filter has no place for it any more
      const same = shown.findIndex(({ frame }) => frame === current.frame);
      if (same >= 0) at = same;
      show(same >= 0 ? shown[same] : { frame: current.frame, errors: cell.errors(pointOf(cell), current.frame.index) });
    }
  };

  let current, labels;
  const show = (entry) => {
    current = entry;
    const { frame, errors } = entry;
    $("#viewer-title").textContent = frame.id;
    $("#viewer-about").textContent = `${cell.network}, ${cell.variant} · ${title(errors)}`;
    Object.assign($("img", layers), { src: image(frame), alt: frame.id, width: frame.columns, height: frame.rows });
    labels = draw($("canvas", layers), frame, segment);
    $("canvas", layers).hidden = !isDrawn;
    layers.style.transform = `translate(${shift[0]}px, ${shift[1]}px) scale(${zoom})`;
    $("#zoom").textContent = `${Math.round(100 * zoom)} %`;
    listSegments(frame);
  };
  const open = (i) => {
    [at, segment, zoom, shift] = [i, null, 1, [0, 0]];
    if (!viewer.open) viewer.showModal();
    show(shown[i]);
    stage.focus();
  };

  // the segments as a list, kept ones first: each can be reached by keyboard
  const order = (frame) => {
    const { probability: p } = cell.details[frame.place];
    return p.map((_, i) => i).sort((a, b) => p[a] - p[b] || a - b);
  };
  const listSegments = (frame) => {
    const details = cell.details[frame.place];
    const first = cell.firstSegment[frame.index];
    panel.replaceChildren(...order(frame).map((i) => {
      const kept = cell.isKept(first + i, pointOf(cell));
      const button = make("button", { type: "button", className: kept ? "kept" : "removed", ariaPressed: String(i === segment) },
        `${kept ? "kept" : "removed"} · ${count(details.size[i], "pixel")} · P(false) ${probability(details.probability[i])}`);
      button.addEventListener("click", () => pick(i === segment ? null : i));
      return make("li", {}, button);
    }));
    $("[aria-pressed=true]", panel)?.scrollIntoView({ block: "nearest" });
    describe(details, first);
  };
  const describe = (details, first) => {
    const place = $("#segment");
    place.hidden = segment === null;
    if (segment === null) return;
    const kept = cell.isKept(first + segment, pointOf(cell));
    const isFalse = cell.isFalse(first + segment);
    const truth = isFalse ? "no pixel of it is OoD" : `it is on an object, adjusted IoU ${details.iou[segment]}`;
    const facts = [`${kept ? "Kept" : "Removed"}, ${kept === isFalse ? "wrongly" : "rightly"}: ${truth}. P(false) ${probability(details.probability[segment])}, mean score ${details.score[segment]}, ${count(details.size[segment], "pixel")}.`];
    const features = details.features[segment];
    const rows = (features || []).map(([k, odds, v], i) => {
      const [name, words] = data.features[k];
      return make("tr", { className: i < 3 ? "reason" : "" },
        make("th", { scope: "row" }, words, make("span", { className: "unit", textContent: name })),
        make("td", { textContent: v }),
        make("td", { textContent: `${odds > 0 ? "+" : "−"}${Math.abs(odds).toFixed(2)}` }),
        make("td", { textContent: odds > 0 ? "false alarm" : "object" }));
    });
    const head = make("tr", {}, ...["feature", "value", "log odds", "speaks for"].map((text) => make("th", { scope: "col", textContent: text })));
    place.replaceChildren(...facts.map((text) => make("p", { textContent: text })), rows.length
      ? make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))
      : make("p", { className: "soft", textContent: "Its features are not in this page: of a frame it tells those of the 30 likeliest objects." }));
  };
  const pick = (i) => { segment = i; show(current); };
  const step = (by) => { if (shown.length) { segment = null; at = (at + by + shown.length) % shown.length; show(shown[at]); } };
  const stepSegment = (by) => {
    const known = order(current.frame);
    if (!known.length) return;
    const place = segment === null ? (by > 0 ? -1 : 0) : known.indexOf(segment);
    pick(known[(place + by + known.length) % known.length]);
  };
  const next = (name) => {
    const field = filters.elements[name];
    field.selectedIndex = (field.selectedIndex + 1) % field.options.length;
    segment = null;
    select();
  };
  // the point (x, y) of the stage stays where it is
  const zoomBy = (factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
    const scaled = Math.min(Math.max(zoom * factor, 1), 16);
    shift = scaled === 1 ? [0, 0] : [x - (x - shift[0]) * scaled / zoom, y - (y - shift[1]) * scaled / zoom];
    zoom = scaled;
    show(current);
  };
  const pan = (x, y) => { if (zoom > 1) { shift = [shift[0] + x, shift[1] + y]; show(current); } };

  const KEYS = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => zoomBy(0),
    n: () => stepSegment(1), p: () => stepSegment(-1), v: () => next("variant"), w: () => next("network"),
    o: () => { isDrawn = !isDrawn; show(current); },
  };
  const PANS = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = event.shiftKey && PANS[event.key] ? () => pan(...PANS[event.key]) : KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  $$("[data-key]", viewer).forEach((button) => button.addEventListener("click", () => KEYS[button.dataset.key]()));
  $("[data-close]", viewer).addEventListener("click", () => viewer.close());
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoomBy(event.deltaY < 0 ? 1.25 : 0.8, event.clientX - box.x, event.clientY - box.y);
  }, { passive: false });
  let held = null, moved = 0;
  stage.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; moved = 0; });
  stage.addEventListener("pointermove", (event) => {
    if (!held || !event.buttons) return;
    moved += Math.abs(event.clientX - held[0]) + Math.abs(event.clientY - held[1]);
    pan(event.clientX - held[0], event.clientY - held[1]);
    held = [event.clientX, event.clientY];
  });
  stage.addEventListener("click", (event) => {
    if (moved > 5) return;  // it was a drag
    const box = $("canvas", layers).hidden ? $("img", layers).getBoundingClientRect() : $("canvas", layers).getBoundingClientRect();
    const { rows, columns } = current.frame;
    const [x, y] = [Math.floor((event.clientX - box.x) / box.width * columns), Math.floor((event.clientY - box.y) / box.height * rows)];
    // a small segment is hit within two pixels, too
    const near = [[0, 0], [0, -1], [0, 1], [-1, 0], [1, 0], [0, -2], [0, 2], [-2, 0], [2, 0]];
    const hit = near.map(([a, b]) => (x + a >= 0 && x + a < columns && labels[(y + b) * columns + x + a]) || 0).find(Boolean);
    pick(hit ? hit - 1 : null);
  });

  const fill = (name, options) => filters.elements[name].replaceChildren(...options.map(([v, text]) => make("option", { value: v, textContent: text })));
  const distinct = (key) => [...new Set(cells.map((one) => one[key]))].map((name) => [name, name]);
  fill("set", data.sets.map((set, i) => [i, set.name]));
  fill("network", distinct("network"));
  fill("variant", distinct("variant"));
  filters.elements.variant.selectedIndex = filters.elements.variant.options.length - 1;
  filters.addEventListener("change", () => { segment = null; select(); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  return select;
};

// --- start -----------------------------------------------------------------------------------------------------------

// JSON, deflated, as base64
const unpack = async (id) => {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
};

const start = async () => {
  $$(".wide table").forEach(sortable);
  const data = await unpack("page-data");
  for (const [name, values] of Object.entries(data.charts)) interactive($(`svg[data-name="${CSS.escape(name)}"]`), values);
  if (data.gallery) {
    explore(data.gallery, JSON.parse($("#thumbnails").textContent));
    $$("[data-script]").forEach((element) => { element.hidden = false; });
  }
  document.documentElement.dataset.ready = Math.round(performance.now());
};
start();
})();
