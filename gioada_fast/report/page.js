"use strict";
// Without this script a page shows the same tables and pictures. The script sorts tables by a click
// on a heading, and shows the pictures of a panel large, two of them with a divider between.

for (const table of document.querySelectorAll("table.sortable")) {
  const [body] = table.tBodies, [headings] = table.tHead.rows, unsorted = [...body.rows];
  [...headings.cells].forEach((heading, column) => {
    if (!heading.textContent) return;
    const isNumber = heading.classList.contains("number");
    const value = (row) => {
      const text = row.cells[column].textContent.trim().replace("−", "-").replace(/^< /, "");
      return isNumber ? Number.parseFloat(text) : text;
    };
    const orders = ["ascending", "descending"];
    if (isNumber) orders.reverse();
    orders.push(null); // the third click restores the first order
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.onclick = () => {
      const order = orders[(orders.indexOf(heading.ariaSort) + 1) % 3];
      for (const other of headings.cells) other.ariaSort = null;
      heading.ariaSort = order;
      const sign = order === "descending" ? -1 : 1;
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (!isNumber) return sign * x.localeCompare(y, "en", { numeric: true });
        return Number.isNaN(x) - Number.isNaN(y) || sign * (x - y) || 0; // no value: last
      };
      body.append(...(order ? [...unsorted].sort(compare) : unsorted));
    };
  });
}

const viewer = document.querySelector(".viewer");
const find = (selector) => viewer.querySelector(selector);
const stage = find(".stage"), divider = find("input");
const sides = ["left", "right"].map((side) => [find(`img.${side}`), find(`select.${side}`)]);
let rows = [], current = 0, caption = "";

function show() {
  const pictures = [...rows[current].querySelectorAll("img")];
  for (const [image, choice] of sides) {
    image.src = pictures[choice.selectedIndex].src;
    image.alt = pictures[choice.selectedIndex].alt;
  }
  stage.style.setProperty("--ratio", pictures[0].width / pictures[0].height);
  find("#viewer-caption").textContent =
    rows.length > 1 ? `${caption}, row ${current + 1} of ${rows.length}` : caption;
}

function divide(percent) {
  divider.value = percent;
  stage.style.setProperty("--at", `${divider.value}%`);
}

function open(panel, row, column) {
  rows = [...panel.querySelectorAll(".tiles")];
  current = row;
  caption = panel.querySelector("figcaption span").textContent;
  const names = [...rows[0].children].map((tile) => tile.textContent.trim());
  for (const [, choice] of sides) choice.replaceChildren(...names.map((name) => new Option(name)));
  // the picture beside the one before it: adapted and control, translated and source
  sides[1][1].selectedIndex = Math.max(column, Math.min(1, names.length - 1));
  sides[0][1].selectedIndex = Math.max(sides[1][1].selectedIndex - 1, 0);
  find(".controls").hidden = names.length < 2;
  find(".back").hidden = find(".on").hidden = rows.length < 2;
  divide(names.length < 2 ? 0 : 50);
  show();
  viewer.showModal();
  (names.length < 2 ? find(".close") : divider).focus();
}

function go(step) {
  current = (current + step + rows.length) % rows.length;
  show();
}

for (const panel of document.querySelectorAll(".panel:not(.whole)")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = panel.querySelector(".tiles").children.length > 1 ? "compare" : "enlarge";
  button.onclick = () => open(panel, 0, panel.querySelector(".tiles").children.length - 1);
  panel.querySelector("figcaption").append(button);
  panel.classList.add("live");
  [...panel.querySelectorAll(".tiles")].forEach((tiles, row) =>
    [...tiles.querySelectorAll("img")].forEach((image, column) => {
      image.onclick = () => open(panel, row, column);
    }));
}
find(".back").onclick = () => go(-1);
find(".on").onclick = () => go(1);
find(".close").onclick = () => viewer.close();
divider.oninput = () => divide(divider.value);
for (const [, choice] of sides) choice.onchange = show;
stage.onpointerdown = stage.onpointermove = (event) => {
  if (!event.buttons || find(".controls").hidden) return;
  stage.setPointerCapture(event.pointerId);
  const { left, width } = stage.getBoundingClientRect();
  divide((100 * (event.clientX - left)) / width);
};
