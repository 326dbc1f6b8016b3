"use strict";
(() => {
  const table = document.getElementById("all");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const words = rows.map((row) => row.textContent.toLowerCase());
  const filter = document.getElementById("filter");
  const count = document.getElementById("count");

  filter.parentElement.hidden = rows.length < 2;
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, number) => {
      row.hidden = !wanted.every((word) => words[number].includes(word));
      shown += !row.hidden;
    });
    count.textContent = wanted.length ? `${shown} of ${rows.length}` : "";
  });

  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map((row) => {
        const cell = row.cells[column];
        return [cell.dataset.v ? Number(cell.dataset.v) : cell.textContent, row];
      });
      keyed.sort(([one], [other]) => (typeof one === "number" ? one - other : collator.compare(one, other)));
      if (down) keyed.reverse();
      body.append(...keyed.map(([, row]) => row));
    });
  });
})();
