// How boxes are coloured, and the legend that says so.

// Maps: an object has entries that nobody put there, and "constructor" is the name of a package as well.
const PALETTE = {
  category: new Map([
    ["GPU code", "rgb(78, 121, 167)"],
    ["host code", "rgb(148, 190, 224)"],
    ["symbols", "rgb(222, 156, 76)"],
    ["data", "rgb(122, 182, 170)"],
    ["Python source", "rgb(112, 158, 84)"],
    ["bytecode", "rgb(178, 208, 140)"],
    ["headers", "rgb(188, 154, 60)"],
    ["static libraries", "rgb(232, 202, 110)"],
    ["tests", "rgb(206, 92, 96)"],
    ["caches", "rgb(240, 166, 158)"],
    ["build tools", "rgb(190, 116, 160)"],
    ["tar framing", "rgb(150, 144, 142)"],
    ["hidden", "rgb(112, 108, 118)"],
  ]),
  risk: new Map([
    ["lossless", "rgb(74, 156, 136)"],
    ["target", "rgb(84, 130, 186)"],
    ["policy", "rgb(226, 178, 84)"],
    ["observed", "rgb(206, 96, 72)"],
  ]),
  change: new Map([
    ["gone", "rgb(206, 96, 72)"],
    ["smaller", "rgb(240, 166, 140)"],
    ["larger", "rgb(120, 164, 210)"],
    ["new", "rgb(64, 112, 170)"],
  ]),
  owner: [
    "rgb(78, 121, 167)",
    "rgb(232, 150, 70)",
    "rgb(102, 162, 102)",
    "rgb(206, 92, 96)",
    "rgb(122, 182, 170)",
    "rgb(226, 190, 88)",
    "rgb(172, 122, 164)",
    "rgb(240, 166, 158)",
    "rgb(150, 118, 96)",
    "rgb(148, 190, 224)",
  ],
};
const OTHERS = -1;
const FOLLOWS = "follows";
const STAYS = "stays";
const RISKS = new Map([
  [FOLLOWS, "framing of what left"],
  ["lossless", "lossless: the running system cannot tell"],
  ["target", "target: the declared target cannot tell"],
  ["policy", "policy: a convenience leaves"],
  ["observed", "observed: rests on an observation"],
]);

// Colours that follow the theme, from the style sheet.
function themeColours() {
  const probe = document.getElementById("canvas");
  const before = probe.style.color;
  const read = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const found = {
    ink: read("--ink"),
    muted: read("--muted"),
    hatch: read("--hatch"),
    veil: read("--veil"),
    plate: read("--plate"),
    quiet: read("--quiet"),
    focus: read("--focus"),
    group: [read("--group-0"), read("--group-1"), read("--group-2"), read("--group-3")],
  };
  probe.style.color = before;
  return found;
}

// The schemes of a tree by name: each gives a leaf's key, and of a key the words and the colour.
function schemes(tree, colours) {
  const { leaves, cuts, texts, owners } = tree;
  const top = owners
    .map((owner, at) => [Math.max(owner.bytes, owner.after_bytes || 0), at])
    .sort((a, b) => b[0] - a[0])
    .slice(0, PALETTE.owner.length)
    .map(([, at]) => at);
  const rank = new Map(top.map((owner, at) => [owner, at]));
  const alone = (name) => top.filter((at) => owners[at].name === name).length === 1;
  const ownerWords = (at) => (alone(owners[at].name) ? owners[at].name : ownerText(owners[at]));
  const found = {
    category: {
      title: "category",
      key: (leaf) => tree.categories[leaves.category[leaf]],
      words: (category) => category,
      colour: (category) => PALETTE.category.get(category) || colours.quiet,
    },
    owner: {
      title: "package",
      key: (leaf) => (rank.has(leaves.owner[leaf]) ? leaves.owner[leaf] : OTHERS),
      words: (owner) => (owner === OTHERS ? "all others" : ownerWords(owner)),
      colour: (owner) => (owner === OTHERS ? colours.quiet : PALETTE.owner[rank.get(owner)]),
    },
  };
  if (cuts.pass.length) {
    found.risk = {
      title: "risk",
      // What stays has no risk: only what left is coloured, and summed in the legend.
      ofLeft: true,
      key: (leaf) => {
        if (leaves.after[leaf] === leaves.bytes[leaf]) return STAYS;
        return leaves.cut[leaf] < 0 ? FOLLOWS : texts[cuts.risk[leaves.cut[leaf]]];
      },
      words: (risk) => RISKS.get(risk) || risk,
      colour: (risk) => PALETTE.risk.get(risk) || colours.quiet,
    };
  } else if (tree.two) {
    found.change = {
      title: "change",
      key: (leaf) => {
        const [before, after] = [leaves.bytes[leaf], leaves.after[leaf]];
        if (before === after) return "the same";
        return !after ? "gone" : !before ? "new" : after < before ? "smaller" : "larger";
      },
      words: (change) => change,
      colour: (change) => PALETTE.change.get(change) || colours.quiet,
    };
  }
  return found;
}

// The leaf of a node that lost the most.
function mostLeft(tree, node) {
  const { bytes, after } = tree.leaves;
  let [most, found] = [-1, node.leaf];
  eachLeaf(node, (leaf) => {
    if (bytes[leaf] - after[leaf] > most) [most, found] = [bytes[leaf] - after[leaf], leaf];
  });
  return found;
}

// The legend of what a node holds: a swatch, a word and the bytes of each key, the most first.
function drawLegend(list, tree, scheme, node) {
  const sums = new Map();
  eachLeaf(node, (leaf) => {
    const [before, after] = [tree.leaves.bytes[leaf], tree.leaves.after[leaf]];
    const add = (key, ...amounts) => {
      const sum = sums.get(key) || [0, 0];
      sums.set(key, sum.map((amount, side) => amount + amounts[side]));
    };
    if (scheme.ofLeft) {
      add(STAYS, after, after);
      if (after !== before) add(scheme.key(leaf), before - after, 0);
    } else add(scheme.key(leaf), before, after);
  });
  const rows = [...sums].sort((a, b) => Math.max(...b[1]) - Math.max(...a[1]));
  list.replaceChildren(
    ...rows.map(([key, [before, after]]) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.background = scheme.colour(key);
      const sizes = scheme.ofLeft ? showSize(before) : sizeOf(tree, before, after);
      return element("li", {}, swatch, nameOf(scheme.words(key)), " ", element("span", { class: "n" }, sizes));
    }),
  );
}
