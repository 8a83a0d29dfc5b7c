// What a node is, in words: the table of what it holds, what is selected, and a plan's cuts.

const PAGE = 25;
const KINDS = {
  image: "the whole image",
  layer: "layer",
  owner: "package",
  category: "category",
  directory: "directory",
  file: "file",
  framing: "tar framing",
  code: "GPU code",
};
const OWNER_KINDS = {
  python: "Python distribution",
  debian: "Debian package",
  interpreter: "interpreter",
  application: "application",
};

function pathOf(tree, node) {
  for (const each of lineage(node)) {
    if (each.kind === "file" || each.kind === "directory") return `/${fullPath(tree, each.index)}`;
  }
  return "";
}

const titleOf = (node) => (node.kind === "image" ? "Image" : plain(node.name));

function ownerText(owner) {
  const [before, after] = [owner.version, owner.after_version];
  const version = before && after && before !== after ? `${before} → ${after}` : before || after;
  const kind = OWNER_KINDS[owner.kind];
  return [owner.name, version, kind ? `(${kind})` : ""].filter(Boolean).join(" ");
}

// What left a node, by pass and risk, the most first: as in the table of passes, with the headers and padding that left,
// which have no reason of their own. What grew by a cut counts against what left by it.
function cutsOf(tree, node) {
  const { leaves, cuts, texts } = tree;
  const sums = new Map();
  eachLeaf(node, (leaf) => {
    const left = leaves.bytes[leaf] - leaves.after[leaf];
    const cut = leaves.cut ? leaves.cut[leaf] : -1;
    if (!left || cut === undefined || cut < 0) return;
    const key = `${texts[cuts.pass[cut]]} (${texts[cuts.risk[cut]]})`;
    const found = sums.get(key) || { key, bytes: 0, whys: new Map(), cuts: new Set() };
    found.bytes += left;
    sums.set(key, found);
    if (!leaves.path[leaf]) return;
    found.cuts.add(cut);
    found.whys.set(cuts.why[cut], { bytes: left + (found.whys.get(cuts.why[cut])?.bytes || 0), cut });
  });
  return [...sums.values()].filter((found) => found.bytes).sort((a, b) => b.bytes - a.bytes);
}

// The reason for most of what left by a pass, and how many more there are; one cut's evidence is said of one cut alone.
function reasonOf(tree, { whys, cuts }) {
  if (!whys.size) return "headers and padding of what left";
  const [{ cut }] = [...whys.values()].sort((a, b) => b.bytes - a.bytes);
  const evidence = tree.texts[tree.cuts.evidence[cut]];
  const others = whys.size - 1;
  const more = others ? `; and ${showBytes(others)} more reason${others === 1 ? "" : "s"}` : "";
  return `${tree.texts[tree.cuts.why[cut]]}${more}${cuts.size === 1 && evidence ? ` (${evidence})` : ""}`;
}

function sumsBy(tree, node, label) {
  const sums = new Map();
  eachLeaf(node, (leaf) => {
    const key = label(leaf);
    sums.set(key, (sums.get(key) || 0) + Math.max(tree.leaves.bytes[leaf], tree.leaves.after[leaf]));
  });
  return [...sums].sort((a, b) => b[1] - a[1]);
}

function sizesText(tree, node) {
  if (!tree.two) return `${showSize(node.bytes)} (${showBytes(node.bytes)} bytes)`;
  return `${showSize(node.bytes)} → ${showSize(node.after)} (${showBytes(node.bytes)} → ${showBytes(node.after)} bytes)`;
}

// The lines about a node: [title, text] pairs.
function facts(tree, node, root) {
  const { leaves } = tree;
  const lines = node.kind === "owner" ? [] : [[KINDS[node.kind], titleOf(node)]];
  lines.push(["bytes", `${sizesText(tree, node)}, ${showShare(node.bytes, root.bytes)} ${wholeOf(tree)}`]);
  const path = pathOf(tree, node);
  if (path) lines.push(["path", path]);
  const owners = sumsBy(tree, node, (leaf) => leaves.owner[leaf]);
  if (owners.length === 1) {
    const owner = tree.owners[owners[0][0]];
    lines.push(["package", ownerText(owner)]);
    if (owner.why) lines.push(["why it is there", owner.why]);
  } else {
    const names = owners.slice(0, 4).map(([owner, bytes]) => `${tree.owners[owner].name} ${showSize(bytes)}`);
    lines.push(["packages", names.join(", ") + (owners.length > 4 ? `, ${showBytes(owners.length - 4)} more` : "")]);
  }
  const categories = sumsBy(tree, node, (leaf) => tree.categories[leaves.category[leaf]]);
  lines.push([
    categories.length === 1 ? "category" : "categories",
    categories.length === 1
      ? categories[0][0]
      : categories.slice(0, 4).map(([name, bytes]) => `${name} ${showSize(bytes)}`).join(", "),
  ]);
  const left = cutsOf(tree, node);
  for (const found of left.slice(0, 4)) {
    lines.push([`leaves: ${found.key}`, `${showSize(found.bytes)}: ${reasonOf(tree, found)}`]);
  }
  if (left.length > 4) {
    const rest = left.slice(4);
    const bytes = rest.reduce((sum, found) => sum + found.bytes, 0);
    lines.push(["leaves otherwise", `${showSize(bytes)}: ${rest.map((found) => found.key).join(", ")}`]);
  }
  return lines;
}

// A few words about a node, for a row of the table.
function note(tree, node) {
  const leaf = largestLeaf(node);
  const owner = tree.owners[tree.leaves.owner[leaf]];
  if (node.kind === "owner") return [ownerText(owner).slice(owner.name.length + 1), owner.why].filter(Boolean).join("; ");
  const left = cutsOf(tree, node)[0];
  if (left && node.bytes > node.after) {
    return `${left.key}: ${reasonOf(tree, { ...left, cuts: new Set() })}`;
  }
  if (node.kind === "layer" || node.kind === "code" || node.kind === "framing") return "";
  const category = tree.categories[tree.leaves.category[leaf]];
  return node.kind === "category" ? "" : `${owner.name}, ${category}`;
}

function contentsTable(tree, nodes, whole, zoom, { found = false, caption }) {
  const nameCell = (node) => {
    const path = found ? pathOf(tree, node) || titleOf(node) : plain(node.name);
    const label = node.kind === "directory" && !found ? `${path}/` : path;
    if (!node.children.length && !found) return nameOf(label);
    return element("button", { type: "button", class: "link", onclick: () => zoom(node) }, nameOf(label));
  };
  const size = (field) => (node) => element("span", { title: `${showBytes(node[field])} bytes` }, showSize(node[field]));
  const columns = [{ title: "Name", key: (node) => node.name, cell: nameCell, className: "name" }];
  columns.push({ title: tree.two ? "Before" : "Size", number: true, key: (node) => node.bytes, cell: size("bytes") });
  if (tree.two) {
    columns.push({ title: "After", number: true, key: (node) => node.after, cell: size("after") });
    columns.push({
      title: "Change",
      number: true,
      key: (node) => node.after - node.bytes,
      cell: (node) => (node.after === node.bytes ? "-" : showChange(node.after - node.bytes)),
    });
  }
  columns.push({
    title: tree.two ? "Share before" : "Share",
    number: true,
    key: (node) => node.bytes,
    cell: (node) => element("span", { class: "share" }, bar(node.bytes / (whole.bytes || 1)), showShare(node.bytes, whole.bytes)),
  });
  columns.push({ title: "About", key: (node) => note(tree, node), cell: (node) => nameOf(note(tree, node)), className: "why" });
  const rows = [...nodes].sort((a, b) => b.bytes - a.bytes || b.after - a.after); // as the header says
  return dataTable({ caption, columns, rows, page: PAGE, sorted: 1 });
}

// The plan's cuts, with filters. `show(path)` takes the treemap to a path.
function cutsTable(tree, place, show) {
  const { cuts, texts } = tree;
  const all = cuts.pass.map((_, at) => at).sort((a, b) => saved(b) - saved(a));
  function saved(at) {
    return cuts.before[at] - cuts.after[at];
  }
  const text = (column) => (at) => texts[column[at]];
  const columns = [
    {
      title: "Leaves",
      number: true,
      key: saved,
      cell: (at) => element("span", { title: `${showBytes(saved(at))} bytes` }, showSize(saved(at))),
    },
    {
      title: "Path",
      className: "name",
      key: (at) => fullPath(tree, cuts.path[at]),
      cell: (at) => {
        if (!cuts.path[at]) return `end of layer ${cuts.layer[at] + 1}`;
        const name = nameOf(`/${fullPath(tree, cuts.path[at])}`);
        const link = element("button", { type: "button", class: "link", onclick: () => show(cuts.path[at]) }, name);
        const below = cuts.below[at];
        return below ? element("span", {}, link, ` and all in it: ${showBytes(below)} paths`) : link;
      },
    },
    { title: "Pass", key: text(cuts.pass), cell: text(cuts.pass) },
    {
      title: "Risk",
      key: text(cuts.risk),
      cell: (at) => element("span", { class: `risk ${texts[cuts.risk[at]]}` }, texts[cuts.risk[at]]),
    },
    { title: "Reason", className: "why", key: text(cuts.why), cell: (at) => nameOf(texts[cuts.why[at]]) },
    { title: "Evidence", className: "why", key: text(cuts.evidence), cell: (at) => nameOf(texts[cuts.evidence[at]]) },
  ];
  const passes = [...new Set(cuts.pass)].map((at) => texts[at]);
  const risks = [...new Set(cuts.risk)].map((at) => texts[at]);
  const choice = (label, options) => {
    const select = element("select", {}, element("option", { value: "" }, "all"));
    select.append(...options.map((option) => element("option", { value: option }, option)));
    return [element("label", {}, label, " ", select), select];
  };
  const [passLabel, pass] = choice("Pass", passes);
  const [riskLabel, risk] = choice("Risk", risks);
  const words = element("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const wordsLabel = element("label", {}, "Path or reason ", words);
  const table = element("div");
  const said = element("p", { class: "aside", role: "status" });
  const filtered = element("p", { class: "paper" });
  const draw = () => {
    const word = words.value.toLowerCase();
    const rows = all.filter(
      (at) =>
        (!pass.value || texts[cuts.pass[at]] === pass.value) &&
        (!risk.value || texts[cuts.risk[at]] === risk.value) &&
        (!word || `/${fullPath(tree, cuts.path[at])}\0${texts[cuts.why[at]]}`.toLowerCase().includes(word)),
    );
    const sum = rows.reduce((total, at) => total + saved(at), 0);
    said.textContent = `${showBytes(rows.length)} cut${rows.length === 1 ? "" : "s"}, ${showSize(sum)}`;
    const filters = [
      [pass.value, "of the pass ", pass.value],
      [risk.value, "of the risk ", risk.value],
      [word, "with ", nameOf(words.value), " in path or reason"],
    ].filter(([chosen]) => chosen);
    filtered.hidden = !filters.length;
    filtered.replaceChildren("Only cuts ", ...filters.flatMap(([, ...said], place) => (place ? [", ", ...said] : said)));
    table.replaceChildren(dataTable({ caption: "Cuts of the plan", columns, rows, page: PAGE, sorted: 0 }));
  };
  pass.addEventListener("change", draw);
  risk.addEventListener("change", draw);
  words.addEventListener("input", draw);
  draw();
  place.append(element("div", { class: "controls" }, passLabel, riskLabel, wordsLabel), filtered, said, table);
}
