// Tables: those of the document can be sorted and cut short, others are made from the tree.

const SHORT = 15;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// Text of the image: harmless, and isolated from what stands around it.
const nameOf = (text) => element("bdi", {}, plain(text));

// Makes the headers of a table sort it. `sort(column, descending)` does the work.
function sortable(table, sort, sorted = null) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    if (!header.textContent) return;
    const number = header.classList.contains("n");
    const button = element("button", { type: "button", class: "sort" }, ...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") ? header.getAttribute("aria-sort") === "ascending" : number;
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(column, descending);
    });
  });
  if (sorted !== null) headers[sorted].setAttribute("aria-sort", "descending");
}

// Browsers repeat headers on every sheet of paper only where nothing in them can be pressed.
let pressed = [];
window.addEventListener("beforeprint", () => {
  pressed = [...document.querySelectorAll("th > button.sort")].map((button) => [button.parentNode, button]);
  for (const [, button] of pressed) button.replaceWith(...button.childNodes);
});
window.addEventListener("afterprint", () => {
  for (const [header, button] of pressed) {
    button.append(...header.childNodes);
    header.append(button);
  }
  pressed = [];
});

function compareKeys(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
}

// A table that the document came with: its headers sort, and only its first rows show at first.
function enhance(table) {
  const body = table.tBodies[0];
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const marked = [...table.tHead.rows[0].cells].findIndex((cell) => cell.hasAttribute("aria-sort"));
  sortable(
    table,
    (column, descending) => {
      const rows = [...body.rows].sort((a, b) => compareKeys(key(a, column), key(b, column)) * (descending ? -1 : 1));
      body.append(...rows);
      restOf(body);
    },
    marked < 0 ? null : marked,
  );
  restOf(body);
  const more = body.rows.length - SHORT;
  if (more < 3) return;
  table.classList.add("short");
  const button = element("button", { type: "button", class: "more" }, `Show all ${showBytes(body.rows.length)}`);
  button.addEventListener("click", () => {
    table.classList.remove("short");
    button.remove();
  });
  table.closest(".scroll").after(button);
}

function restOf(body) {
  [...body.rows].forEach((row, at) => row.classList.toggle("rest", at >= SHORT));
}

// A table of many rows from data: `columns` are { title, number, key(row), cell(row) }, `page` rows show at first.
function dataTable({ caption, columns, rows, page, sorted }) {
  const body = element("tbody");
  const head = element(
    "tr",
    {},
    ...columns.map((column) => element("th", { scope: "col", class: column.number ? "n" : column.className }, column.title)),
  );
  const table = element("table", {}, element("caption", {}, caption), element("thead", {}, head), body);
  const more = element("button", { type: "button", class: "more" });
  const unprinted = element("p", { class: "paper" });
  let order = rows;
  let shown = page;
  const draw = () => {
    body.replaceChildren(
      ...order.slice(0, shown).map((row) =>
        element(
          "tr",
          {},
          ...columns.map((column) => {
            const made = column.cell(row);
            const cell = element("td", { class: column.number ? "n" : column.className });
            cell.append(made);
            return cell;
          }),
        ),
      ),
    );
    const rest = order.length - shown;
    more.hidden = rest <= 0;
    unprinted.hidden = rest <= 0;
    unprinted.textContent = `${showBytes(rest)} more rows, which are not on paper`;
    more.textContent = `Show ${showBytes(Math.min(rest, 10 * page))} more of ${showBytes(rest)}`;
  };
  more.addEventListener("click", () => {
    shown += 10 * page;
    draw();
  });
  sortable(
    table,
    (column, descending) => {
      const { key } = columns[column];
      order = [...order].sort((a, b) => compareKeys(key(a), key(b)) * (descending ? -1 : 1));
      draw();
    },
    sorted,
  );
  draw();
  return element("div", {}, element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table), more, unprinted);
}

// A share as a bar; SVG, since the document allows no style attributes.
function bar(share, kind = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  made.setAttribute("class", `bar ${kind}`);
  made.setAttribute("aria-hidden", "true");
  const part = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  part.setAttribute("width", `${Math.max(0, Math.min(100, 100 * share))}%`);
  part.setAttribute("height", "100%");
  made.append(part);
  return made;
}
