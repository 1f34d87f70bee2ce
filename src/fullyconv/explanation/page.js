"use strict";
const [row, column] = ["row", "column"].map((name) => document.getElementById(name));
const command = document.getElementById("command");
function write() {
  const place = `${row.value || "ROW"},${column.value || "COLUMN"}`;
  command.textContent = command.dataset.command.replace("ROW,COLUMN", place);
}
for (const input of [row, column]) input.addEventListener("input", write);
for (const picture of document.querySelectorAll("svg.place")) {
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect(), view = picture.viewBox.baseVal;
    const top = Number(command.dataset.top), left = Number(command.dataset.left);
    const scale = Number(command.dataset.scale);
    const place = (share, length, start) => Math.floor((Math.floor(share * length) + start + 0.5) * scale);
    row.value = place((event.clientY - box.top) / box.height, view.height, top);
    column.value = place((event.clientX - box.left) / box.width, view.width, left);
    write();
  });
}
