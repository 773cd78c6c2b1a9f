// A click on a column head sorts the rows by the shown value: upwards or downwards first, then the other way, then as
// they were. A run keeps its seeds, a section its rows; floors and true masks stay where they are.
"use strict";
(() => {
  const NOTHING = new Set(["", "\u2013", "too few"]);

  const shown = (cell) => {
    const part = cell.querySelector(".value, .change > span") || cell;
    return part.textContent.replace(/\u2212/g, "-").replace(/\s+/g, " ").trim();
  };

  const number = (text) => parseFloat(text.replace(/^[[+]+/, ""));

  const blocksOf = (rows) => {
    const blocks = [];
    for (const row of rows) {
      const kind = row.className;
      if (kind === "seed" && blocks.length) blocks.at(-1).rows.push(row);
      else blocks.push({ stays: ["section", "blind", "oracle"].includes(kind), rows: [row] });
    }
    return blocks;
  };

  // What may be sorted: runs of blocks with nothing between them that stays.
  const partsOf = (blocks) => {
    const parts = [[]];
    for (const block of blocks) {
      if (block.stays) parts.push([block], []);
      else parts.at(-1).push(block);
    }
    return parts;
  };

  const sorted = (part, column, sign) => {
    if (part.length < 2) return part; // a section has no cells to be read
    const keys = new Map(part.map((block) => [block, shown(block.rows[0].cells[column])]));
    const known = part.filter((block) => !NOTHING.has(keys.get(block)));
    const numeric = known.every((block) => !Number.isNaN(number(keys.get(block))));
    const compare = numeric
      ? (a, b) => number(a) - number(b)
      : (a, b) => a.localeCompare(b, "en", { numeric: true });
    known.sort((a, b) => sign * compare(keys.get(a), keys.get(b)));
    return [...known, ...part.filter((block) => NOTHING.has(keys.get(block)))];
  };

  const prepare = (table) => {
    const body = table.tBodies[0];
    const parts = partsOf(blocksOf(body.rows));
    if (!parts.some((part) => part.length > 1)) return;
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      const lowFirst = head.cellIndex === 0 || head.querySelector(".arrow")?.textContent === "\u2193";
      const turns = lowFirst ? ["none", "ascending", "descending"] : ["none", "descending", "ascending"];
      button.addEventListener("click", () => {
        const turn = turns[(turns.indexOf(head.getAttribute("aria-sort") ?? "none") + 1) % 3];
        const sign = { none: 0, ascending: 1, descending: -1 }[turn];
        const now = sign ? parts.map((part) => sorted(part, head.cellIndex, sign)) : parts;
        body.append(...now.flat().flatMap((block) => block.rows));
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        if (turn !== "none") head.setAttribute("aria-sort", turn);
      });
    }
  };

  document.querySelectorAll("table[data-name]").forEach(prepare);
})();
