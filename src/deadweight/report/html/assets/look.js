// How boxes are coloured, and the legend that says so.

const PALETTE = {
  category: {
    "GPU code": "rgb(78, 121, 167)",
    "host code": "rgb(148, 190, 224)",
    symbols: "rgb(222, 156, 76)",
    data: "rgb(122, 182, 170)",
    "Python source": "rgb(112, 158, 84)",
    bytecode: "rgb(178, 208, 140)",
    headers: "rgb(188, 154, 60)",
    "static libraries": "rgb(232, 202, 110)",
    tests: "rgb(206, 92, 96)",
    caches: "rgb(240, 166, 158)",
    "build tools": "rgb(190, 116, 160)",
    "tar framing": "rgb(150, 144, 142)",
    hidden: "rgb(112, 108, 118)",
  },
  risk: {
    lossless: "rgb(74, 156, 136)",
    target: "rgb(84, 130, 186)",
    policy: "rgb(226, 178, 84)",
    observed: "rgb(206, 96, 72)",
  },
  change: { gone: "rgb(206, 96, 72)", smaller: "rgb(240, 166, 140)", larger: "rgb(120, 164, 210)", new: "rgb(64, 112, 170)" },
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
const OTHERS = "all others";
const STAYS = "stays";
const SAME = "the same";
const FOLLOWS = "follows";
const WORDS = {
  [FOLLOWS]: "framing of what left",
  lossless: "lossless: the running system cannot tell",
  target: "target: the declared target cannot tell",
  policy: "policy: a convenience leaves",
  observed: "observed: rests on an observation",
};

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

// The schemes of a tree by name: each gives a leaf's label, and a label's colour.
function schemes(tree, colours) {
  const { leaves, cuts, texts } = tree;
  const top = tree.owners
    .map((owner, at) => [Math.max(owner.bytes, owner.after_bytes || 0), at])
    .sort((a, b) => b[0] - a[0])
    .slice(0, PALETTE.owner.length)
    .map(([, at]) => at);
  const rank = new Map(top.map((owner, at) => [owner, at]));
  const found = {
    category: {
      title: "category",
      label: (leaf) => tree.categories[leaves.category[leaf]],
      colour: (label) => PALETTE.category[label] || colours.quiet,
    },
    owner: {
      title: "package",
      label: (leaf) => (rank.has(leaves.owner[leaf]) ? tree.owners[leaves.owner[leaf]].name : OTHERS),
      colour: (label) => {
        const at = top.findIndex((owner) => tree.owners[owner].name === label);
        return at < 0 ? colours.quiet : PALETTE.owner[at];
      },
    },
  };
  if (cuts.pass.length) {
    found.risk = {
      title: "risk",
      label: (leaf) => {
        if (leaves.after[leaf] >= leaves.bytes[leaf]) return STAYS;
        return leaves.cut[leaf] < 0 ? FOLLOWS : texts[cuts.risk[leaves.cut[leaf]]];
      },
      colour: (label) => PALETTE.risk[label] || colours.quiet,
    };
  } else if (tree.two) {
    found.change = {
      title: "change",
      label: (leaf) => {
        const [before, after] = [leaves.bytes[leaf], leaves.after[leaf]];
        if (before === after) return SAME;
        return !after ? "gone" : !before ? "new" : after < before ? "smaller" : "larger";
      },
      colour: (label) => PALETTE.change[label] || colours.quiet,
    };
  }
  return found;
}

// The legend of what a node holds: a swatch, a word and the bytes of each label, the most first.
function drawLegend(list, tree, scheme, node) {
  const sums = new Map();
  eachLeaf(node, (leaf) => {
    const label = scheme.label(leaf);
    const sum = sums.get(label) || [0, 0];
    sum[0] += tree.leaves.bytes[leaf];
    sum[1] += tree.leaves.after[leaf];
    sums.set(label, sum);
  });
  const rows = [...sums].sort((a, b) => Math.max(...b[1]) - Math.max(...a[1]));
  list.replaceChildren(
    ...rows.map(([label, [before, after]]) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.background = scheme.colour(label);
      const sizes = tree.two ? `${showSize(before)} → ${showSize(after)}` : showSize(before);
      return element("li", {}, swatch, nameOf(WORDS[label] || label), " ", element("span", { class: "n" }, sizes));
    }),
  );
}
