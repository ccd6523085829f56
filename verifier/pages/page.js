"use strict";
(() => {
  const size = 25;
  const tip = document.getElementById("tip");
  const show = (mark) => {
    const at = mark.getBoundingClientRect();
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    tip.style.left = Math.max(4, Math.min(at.left, innerWidth - tip.offsetWidth - 4)) + "px";
    tip.style.top = Math.max(4, at.top - tip.offsetHeight - 6) + "px";
  };
  for (const mark of document.querySelectorAll("[data-tip]")) {
    for (const name of ["mouseenter", "focus"]) mark.addEventListener(name, () => show(mark));
    for (const name of ["mouseleave", "blur"]) mark.addEventListener(name, () => (tip.hidden = true));
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
  const text = (value) => (value === null || value === "" ? "-" : String(value));
  for (const part of document.querySelectorAll("[data-inputs]")) {
    const held = JSON.parse(part.querySelector("script").textContent);
    const rows = held.rows.map((row) => [
      ...row.slice(0, 6), held.methods[row[6]], held.methods[row[7]], row[8] < 0 ? null : held.reasons[row[8]],
    ]);
    const words = rows.map((row) => row.join(" ").toLowerCase());
    const body = part.querySelector("tbody"), heads = [...part.querySelectorAll("th")];
    const find = part.querySelector("input"), outcome = part.querySelector("select");
    const [back, on] = part.querySelectorAll(".tools button"), count = part.querySelector("[role=status]");
    let shown = rows.map((_, i) => i), page = 0, column = 0, sign = 1;
    const rank = (a, b) => {
      const x = rows[a][column], y = rows[b][column];
      if (x === y) return a - b;
      if (x === null) return 1;
      if (y === null) return -1;
      return sign * (x < y ? -1 : 1);
    };
    const draw = () => {
      const pages = Math.max(1, Math.ceil(shown.length / size));
      page = Math.min(page, pages - 1);
      body.replaceChildren(...shown.slice(page * size, (page + 1) * size).map((i) => {
        const line = document.createElement("tr");
        rows[i].forEach((value, place) => {
          const cell = line.insertCell();
          cell.textContent = text(value);
          if (heads[place].className) cell.className = heads[place].className;
        });
        return line;
      }));
      count.textContent = `${shown.length} of ${rows.length} ${part.dataset.inputs}, page ${page + 1} of ${pages}`;
      back.disabled = page === 0;
      on.disabled = page === pages - 1;
    };
    const filter = () => {
      const wanted = find.value.trim().toLowerCase();
      shown = rows.map((_, i) => i).filter((i) =>
        (!outcome.value || rows[i][3] === outcome.value) && (!wanted || words[i].includes(wanted)));
      shown.sort(rank);
      page = 0;
      draw();
    };
    heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
      sign = column === place ? -sign : 1;
      column = place;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      shown.sort(rank);
      page = 0;
      draw();
    }));
    find.addEventListener("input", filter);
    outcome.addEventListener("change", filter);
    back.addEventListener("click", () => { page -= 1; draw(); });
    on.addEventListener("click", () => { page += 1; draw(); });
    draw();
  }
})();
