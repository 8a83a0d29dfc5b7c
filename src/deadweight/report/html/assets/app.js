// The page: one state (grouping, colours, where it is zoomed to, what is selected, what is searched for), drawn anew.

const GROUPINGS = {
  layers: ["layer", "owner"],
  packages: ["owner"],
  categories: ["category", "owner"],
  folders: [],
};
const at = (id) => document.getElementById(id);

function start(tree) {
  const canvas = at("canvas").firstElementChild;
  const trees = new Map();
  const state = { by: tree.layers.length > 1 ? "layers" : "packages", colour: "category", node: null, selected: null };
  let colours = themeColours();
  let maps = [];
  let hovered = null;
  let matches = null; // what was searched for: { rows, size, nodes, below: Set of their ancestors }

  const root = () => {
    if (!trees.has(state.by)) trees.set(state.by, grouped(tree, GROUPINGS[state.by]));
    return trees.get(state.by);
  };
  const scheme = () => schemes(tree, colours)[state.colour];

  function look() {
    const found = scheme();
    const fills = new Map();
    const fill = (key) => {
      if (!fills.has(key)) fills.set(key, found.colour(key));
      return fills.get(key);
    };
    return {
      fill: (node) => fill(found.ofLeft ? STAYS : found.key(largestLeaf(node))),
      gone: (node) => (found.ofLeft ? fill(found.key(mostLeft(tree, node))) : null),
      left: (node) => (tree.two && node.bytes ? Math.max(0, node.bytes - node.after) / node.bytes : 0),
      found: (node) => {
        if (!matches) return "all";
        for (const each of lineage(node)) if (matches.nodes.has(each)) return "all";
        return matches.below.has(node) ? "some" : "none";
      },
    };
  }

  function drawCanvas() {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    maps = regions(state.node, tree.two, width, height).map((map) => ({ ...map, boxes: layout(state.node, map) }));
    paint();
  }

  // The outlines move often, so what lies below them is kept.
  let kept = null;
  function paint() {
    drawMap(canvas, maps, look(), colours);
    drawChosen();
    kept = document.createElement("canvas");
    kept.width = canvas.width;
    kept.height = canvas.height;
    if (canvas.width && canvas.height) kept.getContext("2d").drawImage(canvas, 0, 0);
    mark();
  }

  // For paper, where the controls are not: what was chosen and searched for.
  function drawChosen() {
    const searched = matches ? [" Searched for ", nameOf(at("search").value), `: ${showBytes(matches.rows.length)} found.`] : [];
    at("chosen").replaceChildren(`Grouped by ${state.by}, coloured by ${scheme().title}.`, tree.two ? " Hatched: what left." : "", ...searched);
  }

  function mark() {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (kept.width && kept.height) context.drawImage(kept, 0, 0);
    const scale = window.devicePixelRatio || 1;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    for (const map of maps) {
      for (const box of map.boxes) {
        if (box.data === hovered) outline(context, box, colours.ink, 1.5);
        if (box.data === state.selected && box.data !== state.node) outline(context, box, colours.focus, 3);
      }
    }
  }

  function describe(node) {
    at("about").replaceChildren(
      ...facts(tree, node, root()).flatMap(([title, text]) => [element("dt", {}, title), element("dd", {}, nameOf(text))]),
    );
  }

  function say(node) {
    const inside = node.children.length ? `, ${showBytes(node.children.length)} inside` : "";
    const size = tree.two ? `${showSize(node.bytes)} before, ${showSize(node.after)} after` : showSize(node.bytes);
    at("said").textContent = `${titleOf(node)}: ${size}, ${showShare(node.bytes, root().bytes)} ${wholeOf(tree)}${inside}`;
  }

  function drawCrumbs() {
    const line = [...lineage(state.node)].reverse();
    at("crumbs").replaceChildren(
      ...line.map((node, place) =>
        element(
          "li",
          {},
          place === line.length - 1
            ? element("span", { "aria-current": "location" }, nameOf(titleOf(node)))
            : element("button", { type: "button", class: "link", onclick: () => zoom(node) }, nameOf(titleOf(node))),
        ),
      ),
    );
  }

  function drawContents() {
    const [nodes, title] = matches
      ? [matches.rows, `Found: ${showBytes(matches.rows.length)}, ${matches.size}`]
      : [state.node.children, `Contents of ${state.node.kind === "image" ? "the image" : titleOf(state.node)}`];
    at("contents-title").replaceChildren(nameOf(title));
    const table = nodes.length
      ? contentsTable(tree, nodes, matches ? root() : state.node, zoom, { found: Boolean(matches), caption: title })
      : element("p", { class: "note" }, matches ? "Nothing has such a name." : "Nothing is inside.");
    at("contents").replaceChildren(table);
  }

  function draw() {
    drawCrumbs();
    drawCanvas();
    drawLegend(at("legend"), tree, scheme(), state.node);
    describe(state.selected || state.node);
    drawContents();
  }

  function zoom(node) {
    if (!node) return;
    const from = state.node;
    let target = node.children.length || !node.parent ? node : node.parent;
    // What holds nothing but one more box is passed by, inwards and outwards.
    const only = () => target.children.length === 1 && target.children[0].children.length > 0;
    if (isBelow(from, target)) while (only() && target.parent) target = target.parent;
    else while (only()) target = target.children[0];
    if (matches && target !== from) search("");
    state.node = target;
    // Zoomed out, the box that it was is selected; zoomed to what has no inside, that is.
    const came = [...lineage(from)].find((each) => each.parent === target);
    state.selected = node.children.length ? came || null : node;
    hovered = null;
    draw();
    say(state.selected || state.node);
  }

  function select(node) {
    state.selected = node;
    mark();
    describe(node);
    say(node);
  }

  // The nodes whose names have the words in them, or whose paths where there is a slash.
  function search(words) {
    if (at("search").value !== words) at("search").value = words;
    const word = words.toLowerCase();
    if (!word) {
      matches = null;
      at("hits").textContent = "";
      return;
    }
    const rows = [];
    let [before, after] = [0, 0];
    const below = new Set();
    const visit = (node, above) => {
      const name = word.includes("/") ? `${pathOf(tree, node)}${node.kind === "directory" ? "/" : ""}` : node.name;
      const hit = node !== root() && name.toLowerCase().includes(word) && !(above && word.includes("/"));
      if (hit) {
        rows.push(node);
        // What is inside of what is found has been counted with it.
        if (!above) [before, after] = [before + node.bytes, after + node.after];
        for (const each of lineage(node.parent)) below.add(each);
      }
      for (const child of node.children) visit(child, above || hit);
    };
    visit(root(), false);
    rows.sort((a, b) => Math.max(b.bytes, b.after) - Math.max(a.bytes, a.after));
    matches = { rows, size: sizeOf(tree, before, after), nodes: new Set(rows), below };
    at("hits").textContent = at("said").textContent = `${showBytes(rows.length)} found, ${matches.size}`;
  }

  function choices(name, options, chosen, choose) {
    const field = document.querySelector(`[data-choice=${name}]`);
    for (const [value, title] of options) {
      const input = element("input", { type: "radio", name, value, checked: value === chosen });
      input.addEventListener("change", () => choose(value));
      field.append(element("label", {}, input, element("span", {}, title)));
    }
    field.hidden = options.length < 2;
  }

  function regroup(by) {
    state.by = by;
    state.node = root();
    state.selected = null;
    search(at("search").value);
    draw();
    at("said").textContent = `Grouped by ${by}`;
  }

  // To a path, or the nearest directory above it that the grouping has as a node of its own.
  function show(path) {
    const nodes = new Map();
    const visit = (node) => {
      if (node.kind === "file" || node.kind === "directory") {
        const known = nodes.get(node.index);
        if (!known || known.bytes < node.bytes) nodes.set(node.index, node);
      }
      node.children.forEach(visit);
    };
    visit(root());
    let place = path;
    while (place && !nodes.has(place)) place = tree.paths.parents[place];
    zoom(nodes.get(place) || root());
    at("map").scrollIntoView();
    at("canvas").focus({ preventScroll: true });
  }

  function place(event) {
    const area = canvas.getBoundingClientRect();
    return [event.clientX - area.left, event.clientY - area.top];
  }

  function hover(event) {
    const [x, y] = place(event);
    const box = boxAt(maps, x, y);
    const tip = at("tip");
    tip.hidden = !box;
    if ((box ? box.data : null) !== hovered) {
      hovered = box ? box.data : null;
      mark();
      if (box) {
        tip.textContent = `${titleOf(box.data)}: ${sizeOf(tree, box.data.bytes, box.data.after)}`;
        describe(box.data);
      } else describe(state.selected || state.node);
    }
    tip.style.left = `${Math.max(0, Math.min(x + 14, canvas.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${y + 18}px`;
  }

  at("canvas").addEventListener("pointermove", hover);
  at("canvas").addEventListener("pointerleave", () => {
    hovered = null;
    at("tip").hidden = true;
    mark();
    describe(state.selected || state.node);
  });
  at("canvas").addEventListener("click", (event) => {
    const [x, y] = place(event);
    const box = boxAt(maps, x, y);
    if (!box) return;
    // A title zooms to its group, anything else one step nearer.
    const line = [...lineage(box.data)];
    const step = line[line.indexOf(state.node) - 1];
    const node = box.children && box.data !== state.node ? box.data : step;
    if (!node) return;
    if (node.children.length) zoom(node);
    else select(node);
  });
  at("canvas").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow")) {
      const boxes = maps.flatMap((map) => map.boxes.filter((box) => box.depth === 1));
      const now = boxes.find((box) => box.data === state.selected);
      const next = now ? neighbour(boxes, now, event.key) : boxes[0];
      if (next) select(next.data);
    } else if (event.key === "Enter" || event.key === " ") {
      if (state.selected?.children.length) zoom(state.selected);
    } else if (event.key === "Escape" || event.key === "Backspace") {
      if (state.node.parent) zoom(state.node.parent);
    } else if (event.key === "Home") zoom(root());
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select, textarea")) {
      event.preventDefault();
      at("search").focus();
    }
  });
  at("search").addEventListener("input", () => {
    search(at("search").value);
    paint();
    drawContents();
  });
  at("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && matches?.rows.length) {
      zoom(matches.rows[0]);
      at("canvas").focus();
    } else if (event.key === "Escape") {
      search("");
      paint();
      drawContents();
      at("canvas").focus();
    }
  });
  let drawn = "";
  new ResizeObserver(() => {
    const size = `${canvas.clientWidth} ${canvas.clientHeight}`;
    if (size !== drawn) drawCanvas();
    drawn = size;
  }).observe(at("canvas"));

  const groupings = Object.keys(GROUPINGS).filter((by) => by !== "layers" || tree.layers.length > 1);
  choices("by", groupings.map((by) => [by, by]), state.by, regroup);
  const found = Object.entries(schemes(tree, colours)).map(([name, each]) => [name, each.title]);
  choices("colour", found, state.colour, (colour) => {
    state.colour = colour;
    paint();
    drawLegend(at("legend"), tree, scheme(), state.node);
  });
  at("hatch-key").textContent = tree.two ? "Hatched: what left." : "";
  for (const part of at("map").querySelectorAll(".controls, nav, .stage, .contents")) part.hidden = false;
  state.node = root();
  drawn = `${canvas.clientWidth} ${canvas.clientHeight}`;
  draw();
  const cuts = at("cuts");
  if (cuts && tree.cuts.pass.length) setTimeout(() => cutsTable(tree, cuts, show)); // the map is there first
  return () => {
    colours = themeColours();
    paint();
    drawLegend(at("legend"), tree, scheme(), state.node);
  };
}

// Light, dark, or as the system has it. Paper is light.
function themes(redraw) {
  const page = document.documentElement;
  const button = at("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (page.dataset.theme === "auto" ? dark.matches : page.dataset.theme === "dark");
  const label = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  };
  const set = (theme) => {
    page.dataset.theme = theme;
    label();
    redraw();
  };
  button.hidden = false;
  label();
  button.addEventListener("click", () => set(isDark() ? "light" : "dark"));
  dark.addEventListener("change", () => set(page.dataset.theme));
  let screen = "auto";
  window.addEventListener("beforeprint", () => {
    screen = page.dataset.theme;
    set("light");
  });
  window.addEventListener("afterprint", () => set(screen));
}

document.querySelectorAll("table").forEach(enhance);
let redraw = () => {};
themes(() => redraw());
if (at("map")) {
  readTree()
    .then((tree) => {
      redraw = start(tree);
      document.documentElement.dataset.ready = String(Math.round(performance.now()));
    })
    .catch((error) => {
      at("map").append(element("p", { class: "note", role: "alert" }, `The treemap cannot be shown: ${error.message}`));
      throw error;
    });
}
