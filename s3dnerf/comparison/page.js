"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const known = text => text !== "" && !isNaN(text);
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = known(x) && known(y) ? x - y : x.localeCompare(y);
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg"), tip = figure.querySelector(".tip"), cursor = figure.querySelector(".cursor");
  const curves = JSON.parse(svg.dataset.curves), [left, right] = svg.dataset.frame.split(",").map(Number);
  const [width, begin, end] = [svg.viewBox.baseVal.width, 52, 10];
  const hide = () => { tip.hidden = true; cursor.style.visibility = "hidden"; };
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * width;
    const step = left + (x - begin) / (width - begin - end) * (right - left);
    if (step < left || step > right) return hide();
    const nearest = points => points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
    tip.textContent = curves.map(curve => { const [s, v] = nearest(curve.points); return `${curve.name}: ${v} (step ${Math.round(s)})`; }).join("\n");
    tip.hidden = false;
    cursor.setAttribute("x1", x); cursor.setAttribute("x2", x); cursor.style.visibility = "visible";
  });
  svg.addEventListener("pointerleave", hide);
}
for (const button of document.querySelectorAll("button.play")) {
  const videos = [...button.nextElementSibling.querySelectorAll("video")];
  button.hidden = false;
  button.addEventListener("click", () => videos.forEach((video, index) => {
    video.muted = index !== 0;  // the sound is the same in all of them
    video.currentTime = 0;
    video.play();
  }));
}
