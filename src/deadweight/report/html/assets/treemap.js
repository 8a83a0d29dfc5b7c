// Draws nodes as nested boxes on a canvas: one map, or before and after side by side at the same scale.

const HEAD = 17; // pixels of a group's title
const GAP = 14; // between before and after
const SMALLEST = 120; // square pixels: what is smaller is not taken apart
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif';

// Where the two maps of a node go: side by side, or one below the other where that is wider.
function regions(node, two, width, height) {
  if (!two) return [{ field: "bytes", title: "", x: 0, y: 0, w: width, h: height }];
  const whole = node.bytes + node.after || 1;
  const upright = width < 640;
  const room = (upright ? height : width) - GAP;
  const first = Math.round((room * node.bytes) / whole);
  const [a, b] = [first, room - first];
  const titles = ["Before", "After"];
  return upright
    ? [
        { field: "bytes", title: titles[0], x: 0, y: 0, w: width, h: a },
        { field: "after", title: titles[1], x: 0, y: a + GAP, w: width, h: b },
      ]
    : [
        { field: "bytes", title: titles[0], x: 0, y: 0, w: a, h: height },
        { field: "after", title: titles[1], x: a + GAP, y: 0, w: b, h: height },
      ];
}

// The boxes of a region, parents before what is in them.
function layout(node, { field, x, y, w, h }) {
  if (w < 4 || h < 4 || !node[field]) return [];
  const scale = (w * h) / node[field];
  const shown = (data) =>
    data.children.length && data[field] * scale > SMALLEST ? data.children.filter((child) => child[field] > 0) : null;
  const top = d3.hierarchy(node, shown);
  top.each((box) => (box.value = box.data[field]));
  top.sort((a, b) => b.value - a.value);
  // A directory that is little more than another one needs no title of its own.
  const passage = ({ data, depth }) =>
    depth && data.kind === "directory" && data.children[0].children.length && data.children[0][field] > 0.9 * data[field];
  const titled = (box) => box.children && box.x1 - box.x0 > 44 && box.y1 - box.y0 > 40 && !passage(box);
  const edge = (box) => (titled(box) ? 2 : box.children && passage(box) ? 0 : 1);
  d3
    .treemap()
    .size([w, h])
    .paddingInner(1)
    .paddingTop((box) => (titled(box) ? HEAD : edge(box)))
    .paddingRight(edge)
    .paddingBottom(edge)
    .paddingLeft(edge)(top);
  top.each((box) => {
    box.titled = titled(box);
    box.field = field;
    box.x0 += x;
    box.x1 += x;
    box.y0 += y;
    box.y1 += y;
  });
  return [...top].filter((box) => box.x1 - box.x0 >= 0.7 && box.y1 - box.y0 >= 0.7);
}

// `look` says how a node is coloured: { fill(node), gone(node), found(node): "all" | "some" | "none", left(node): 0..1 };
// `gone` is the colour of what left, where that has one of its own.
function drawMap(canvas, maps, look, colours) {
  const scale = window.devicePixelRatio || 1;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.font = FONT;
  context.textBaseline = "middle";
  const hatch = context.createPattern(hatching(colours), "repeat");
  for (const map of maps) {
    for (const box of map.boxes) drawBox(context, box, map, look, colours, hatch);
    if (!map.boxes.length && map.title) {
      context.fillStyle = colours.muted;
      drawText(context, `${map.title}: nothing`, map.x, map.y + HEAD / 2, Math.max(map.w, 120));
    }
  }
}

function drawBox(context, box, map, look, colours, hatch) {
  const [x, y, w, h] = [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0];
  const node = box.data;
  const found = look.found(node);
  if (box.children) {
    context.fillStyle = colours.group[Math.min(box.depth, colours.group.length - 1)];
    context.fillRect(x, y, w, h);
    if (box.titled) {
      const name = box.depth || !map.title ? plain(node.name) : map.title;
      const ink = found === "none" ? colours.muted : colours.ink;
      drawTitle(context, name, showSize(node[box.field]), x + 5, y + HEAD / 2 + 1, w - 10, colours, ink);
    }
    return;
  }
  const fill = look.fill(node);
  const left = box.field === "bytes" ? look.left(node) : 0;
  context.globalAlpha = found === "none" ? 0.16 : found === "some" ? 0.55 : 1;
  context.fillStyle = fill;
  context.fillRect(x, y, w, h);
  if (left > 0) {
    // The part that leaves, from the bottom up.
    const part = Math.max(h * left, Math.min(h, 2));
    context.save();
    context.beginPath();
    context.rect(x, y + h - part, w, part);
    context.clip();
    const gone = look.gone(node);
    if (gone) {
      context.fillStyle = gone;
      context.fillRect(x, y + h - part, w, part);
    }
    context.fillStyle = colours.veil;
    context.fillRect(x, y + h - part, w, part);
    context.fillStyle = hatch;
    context.fillRect(x, y + h - part, w, part);
    context.restore();
  }
  if (w > (left > 0.5 ? 56 : 34) && h > 14 && found !== "none") {
    context.fillStyle = left > 0.5 ? colours.ink : textOn(fill);
    const plate = left > 0.5 ? colours.plate : "";
    drawText(context, plain(node.name), x + 4, y + 9, w - 7, plate);
    const size = showSize(node[box.field]);
    if (h > 30 && context.measureText(size).width < w - 7) drawText(context, size, x + 4, y + 23, w - 7, plate);
  }
  context.globalAlpha = 1;
}

// Text in a width, with an ellipsis in the middle where it is too long: both ends of a name tell something.
// Nothing where too little of it would be left. Gives the width that it took.
function drawText(context, text, x, y, width, plate = "") {
  let shown = text;
  let taken = context.measureText(text).width;
  if (taken > width) {
    const letters = [...text];
    for (let fits = Math.floor((letters.length * width) / taken); taken > width; fits -= 1) {
      if (fits < 5) return 0;
      const end = Math.floor(fits / 3);
      shown = `${letters.slice(0, fits - end).join("")}…${letters.slice(letters.length - end).join("")}`;
      taken = context.measureText(shown).width;
    }
  }
  shown = `\u2066${shown}\u2069`; // isolated: a name in Hebrew does not turn its size around
  if (plate) {
    const ink = context.fillStyle;
    context.fillStyle = plate;
    context.fillRect(x - 2, y - 7, taken + 4, 14);
    context.fillStyle = ink;
  }
  context.fillText(shown, x, y);
  return taken;
}

// A group's name and, where there is room, its size.
function drawTitle(context, name, size, x, y, width, colours, ink) {
  const room = context.measureText(size).width + 8;
  const both = width > room + 40;
  context.fillStyle = ink;
  const taken = drawText(context, name, x, y, both ? width - room : width);
  context.fillStyle = colours.muted;
  if (both && taken) context.fillText(size, x + taken + 8, y);
}

function hatching(colours) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const context = tile.getContext("2d");
  context.strokeStyle = colours.hatch;
  context.lineWidth = 1.4;
  for (const from of [-8, 0, 8]) {
    context.beginPath();
    context.moveTo(from, 8);
    context.lineTo(from + 8, 0);
    context.stroke();
  }
  return tile;
}

function outline(context, box, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  const half = width / 2;
  context.strokeRect(box.x0 + half, box.y0 + half, box.x1 - box.x0 - width, box.y1 - box.y0 - width);
}

// The innermost box at a place, and the first below the map's own around it.
function boxAt(maps, x, y) {
  for (const map of maps) {
    let inner = null;
    for (const box of map.boxes) {
      if (x >= box.x0 && x < box.x1 && y >= box.y0 && y < box.y1 && (!inner || box.depth > inner.depth)) inner = box;
    }
    if (inner) return inner;
  }
  return null;
}

// The box that lies next to another one in a direction, among those of the same parent.
function neighbour(boxes, from, key) {
  const middle = (box) => [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2];
  const [x, y] = middle(from);
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  let best = null;
  let least = Infinity;
  for (const box of boxes) {
    if (box === from) continue;
    const [bx, by] = middle(box);
    const along = (bx - x) * dx + (by - y) * dy;
    const across = Math.abs((bx - x) * dy) + Math.abs((by - y) * dx);
    const distance = along + 2 * across;
    if (along > 1 && distance < least) [best, least] = [box, distance];
  }
  return best;
}

// Black or white, whichever is easier to read on a colour (WCAG's relative luminance).
function textOn(colour) {
  const [r, g, b] = colour.match(/[\d.]+/g).map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.2 ? "#101214" : "#ffffff";
}
