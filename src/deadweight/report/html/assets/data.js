// The tree of bytes: unpacked, its texts made harmless, and grouped as the reader likes.
// The same as text.py, sizes.py, hierarchy.py and the command() of terminal.py.

const UNPRINTABLE = /[\p{C}\p{Z}]/u;

// Line ends, terminal escapes, bidirectional marks and the like are written as escapes.
function plain(text) {
  return text.replace(/[^\x20-\x7e]/gu, (odd) => {
    if (!UNPRINTABLE.test(odd)) return odd;
    const short = { "\t": "\\t", "\n": "\\n", "\r": "\\r" }[odd];
    if (short) return short;
    const code = odd.codePointAt(0).toString(16);
    if (code.length <= 2) return "\\x" + code.padStart(2, "0");
    return code.length <= 4 ? "\\u" + code.padStart(4, "0") : "\\U" + code.padStart(8, "0");
  });
}

function showSize(bytes) {
  const amount = Math.abs(bytes);
  const sign = bytes < 0 ? "-" : "";
  if (amount < 1000) return `${sign}${amount} B`;
  let value = amount / 1000;
  let unit = 0;
  const units = ["kB", "MB", "GB", "TB", "PB", "EB"];
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${sign}${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${units[unit]}`;
}

// A difference: growth has a sign as well.
const showChange = (bytes) => `${bytes > 0 ? "+" : ""}${showSize(bytes)}`;

function showShare(part, whole) {
  if (!whole) return "-";
  const percent = (100 * part) / whole;
  return percent && Math.abs(percent) < 0.05 ? "<0.1%" : `${percent.toFixed(1)}%`;
}

// Before and after, where there are two sides.
const sizeOf = (tree, before, after) => (tree.two ? `${showSize(before)} → ${showSize(after)}` : showSize(before));

// What shares are of.
const wholeOf = (tree) => (tree.two ? "of the image before" : "of the image");

const showBytes = (bytes) => bytes.toLocaleString("en-US");

// What made a layer, without the shell and the build arguments that every line starts with.
function commandOf(made) {
  const said = made.replace(/\/bin\/sh -c #\(nop\)\s*|(?:RUN (?:\|\d+ .*?)?)?\/bin\/sh -c /s, "").replace(/\s*# buildkit\s*$/, "");
  return said.split(/\s+/).filter(Boolean).join(" ") || "(no history)";
}

async function readTree() {
  const packed = document.getElementById("tree").textContent;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const tree = JSON.parse(await new Response(stream).text());
  tree.two = tree.after_bytes !== null;
  if (!tree.two) tree.leaves.after = new Array(tree.leaves.path.length).fill(0);
  return tree;
}

// The path of an index, without a leading slash.
function fullPath(tree, index) {
  const parts = [];
  for (; index; index = tree.paths.parents[index]) parts.push(tree.paths.names[index]);
  return parts.reverse().join("/");
}

function newNode(parent, kind, name, index) {
  const node = { parent, kind, name, index, bytes: 0, after: 0, children: [], leaf: -1, more: [] };
  if (parent) parent.children.push(node);
  return node;
}

// The tree with `by` ("layer", "owner", "category") as levels above its directories.
function grouped(tree, by) {
  const { leaves, paths } = tree;
  const names = {
    layer: tree.layers.map((layer, at) => `${at + 1}: ${commandOf(layer.created_by)}`),
    owner: tree.owners.map((owner) => owner.name),
    category: tree.categories,
  };
  const root = newNode(null, "image", tree.image.reference, -1);
  const groups = new Map();
  for (let leaf = 0; leaf < leaves.path.length; leaf += 1) {
    const key = by.map((group) => leaves[group][leaf]).join();
    let group = groups.get(key);
    if (!group) groups.set(key, (group = newGroup(root, by, names, leaves, leaf)));
    const path = leaves.path[leaf];
    let node;
    if (path) {
      const file = placeOf(group, paths, path);
      const category = leaves.category[leaf];
      node = partOf(file, "category", tree.categories[category], category);
      const code = leaves.code[leaf];
      if (code >= 0) node = partOf(node, "code", tree.codes[code], code);
    } else {
      node = partOf(group.node, "framing", tree.categories[leaves.category[leaf]], -1);
    }
    addLeaf(leaves, node, leaf);
    for (; node; node = node.parent) {
      node.bytes += leaves.bytes[leaf];
      node.after += leaves.after[leaf];
    }
  }
  tidy(root);
  return root;
}

function newGroup(root, by, names, leaves, leaf) {
  let node = root;
  for (const kind of by) {
    const index = leaves[kind][leaf];
    const found = node.children.find((child) => child.index === index);
    node = found || newNode(node, kind, names[kind][index], index);
  }
  return { node, places: new Map() };
}

// The node of a path in a group, made with the directories above it where it is new.
function placeOf(group, paths, path, kind = "file") {
  let node = group.places.get(path);
  if (!node) {
    const above = paths.parents[path];
    const parent = above ? placeOf(group, paths, above, "directory") : group.node;
    group.places.set(path, (node = newNode(parent, kind, paths.names[path], path)));
  }
  // In an image's other layer a file can be what is a directory here.
  if (kind === "directory") node.kind = "directory";
  return node;
}

function partOf(node, kind, name, index) {
  const found = node.children.find((child) => child.kind === kind && child.index === index);
  return found || newNode(node, kind, name, index);
}

// Sorts by size, joins directories that hold nothing but another one, and drops parts that are the whole.
function tidy(node) {
  while (node.kind === "directory" && node.children.length === 1 && node.children[0].kind === "directory") {
    const only = node.children[0];
    node.name += `/${only.name}`;
    node.index = only.index;
    node.children = only.children;
  }
  if (node.kind === "file" || (node.kind === "category" && node.leaf < 0 && node.parent.kind === "file")) {
    node.children.forEach(tidy);
    const only = node.children.length === 1 ? node.children[0] : null;
    if (only && !only.children.length) {
      node.leaf = only.leaf;
      node.more = only.more;
      node.children = [];
    }
  } else {
    node.children.forEach(tidy);
  }
  for (const child of node.children) child.parent = node;
  node.children.sort((a, b) => Math.max(b.bytes, b.after) - Math.max(a.bytes, a.after));
}

// The leaf that has the most of a node's bytes, about: what stands for it where it is too small to be taken apart.
function largestLeaf(node) {
  while (node.children.length) node = node.children[0];
  return node.leaf;
}

function eachLeaf(node, visit) {
  if (node.leaf >= 0) visit(node.leaf);
  node.more.forEach((leaf) => visit(leaf));
  for (const child of node.children) eachLeaf(child, visit);
}

function* lineage(node) {
  for (; node; node = node.parent) yield node;
}

// A node without children has one leaf, or several where bytes left by several cuts or lie in several layers.
function addLeaf(leaves, node, leaf) {
  if (node.leaf < 0) node.leaf = leaf;
  else if (largerOf(leaves, leaf) > largerOf(leaves, node.leaf)) {
    node.more.push(node.leaf);
    node.leaf = leaf;
  } else node.more.push(leaf);
}

const largerOf = (leaves, leaf) => Math.max(leaves.bytes[leaf], leaves.after[leaf]);

const isBelow = (node, above) => [...lineage(node)].includes(above);
