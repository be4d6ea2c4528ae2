// Sorts, filters and pages the table of erased records. Without it the table stands as it is.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const table = byId("records");
  if (!table) return;
  const PAGE = 100, PRINTED = 1000; // rows shown at once, and on paper
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const tools = byId("records-tools"), search = byId("records-search"), count = byId("records-count");
  const pages = byId("records-pages"), before = byId("records-before"), after = byId("records-after"), where = byId("records-where");
  const choosers = [...tools.querySelectorAll("select")];
  let rows, shown, sorted = { column: -1, down: false }, page = 0;

  function start() {
    if (rows) return;
    rows = [...body.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
    for (const row of JSON.parse(byId("records-further").textContent)) rows.push(row);
    for (const [column, head] of heads.entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(column));
      head.append(button);
    }
    tools.hidden = false;
    filter();
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = choosers.filter((one) => one.value).map((one) => [Number(one.dataset.column), one.value]);
    shown = rows.filter((row) => {
      const text = words.length ? row.join("\n").toLowerCase() : "";
      return chosen.every(([column, value]) => row[column].split(":")[0] === value) && words.every((word) => text.includes(word));
    });
    order();
  }

  function sort(column) {
    sorted = { column, down: sorted.column === column && !sorted.down };
    for (const [place, head] of heads.entries()) {
      if (place === column) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    filter();
  }

  function order() {
    const { column, down } = sorted;
    if (column >= 0) {
      const isNumber = heads[column].dataset.kind === "number";
      const keyed = shown.map((row) => [isNumber ? parseFloat(row[column]) : row[column], row]);
      const missing = (key) => key === "" || key === "not measured" || Number.isNaN(key);
      keyed.sort(([a], [b]) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b); // what was not measured comes last, either way
        return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
      });
      shown = keyed.map(([, row]) => row);
    }
    page = 0;
    show();
  }

  function show() {
    const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    fill(page * PAGE, (page + 1) * PAGE);
    const head = sorted.column < 0 ? "" : `, sorted by ${heads[sorted.column].textContent}, ${sorted.down ? "descending" : "ascending"}`;
    count.textContent = `${shown.length} of ${rows.length} records${head}.`;
    where.textContent = `Page ${page + 1} of ${last + 1}`;
    pages.hidden = last === 0;
    before.disabled = page === 0;
    after.disabled = page === last;
  }

  function fill(from, to) {
    const made = shown.slice(from, to).map((row) => {
      const line = document.createElement("tr");
      for (const [column, text] of row.entries()) {
        const cell = document.createElement(column ? "td" : "th");
        if (!column) cell.scope = "row";
        cell.className = column ? (heads[column].dataset.kind === "number" ? "number" : "") : "mono";
        cell.textContent = text;
        line.append(cell);
      }
      return line;
    });
    body.replaceChildren(...made);
  }

  const details = table.closest("details");
  details.addEventListener("toggle", () => details.open && start());
  if (details.open) start();
  tools.addEventListener("input", filter);
  tools.addEventListener("reset", () => setTimeout(filter));
  tools.addEventListener("submit", (event) => event.preventDefault());
  before.addEventListener("click", () => { page -= 1; show(); });
  after.addEventListener("click", () => { page += 1; show(); });
  addEventListener("beforeprint", () => rows && fill(0, PRINTED));
  addEventListener("afterprint", () => rows && show());
})();
