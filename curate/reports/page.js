// The report's only script: the map answers to mouse, touch and keyboard, and print opens what is
// folded. The page is complete without it. Nothing is fetched; text enters as text, never as markup.
"use strict";
(() => {
  const page = document.documentElement;
  window.addEventListener("error", (event) => {
    page.dataset.scriptError = event.message;
  });

  const folded = [];
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) {
      part.open = true;
      folded.push(part);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const part of folded.splice(0)) part.open = false;
  });

  function followReader() {
    const links = new Map();
    for (const link of document.querySelectorAll("nav a")) links.set(link.hash.slice(1), link);
    const seen = new Set();
    const watch = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) seen.add(target.id);
        else seen.delete(target.id);
      }
      const first = [...links.keys()].find((id) => seen.has(id));
      if (!first) return;
      for (const [id, link] of links) {
        if (id === first) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }, { rootMargin: "-10% 0px -55% 0px" });
    for (const id of links.keys()) watch.observe(document.getElementById(id));
  }

  function startMap(map, data) {
    const marks = [...map.querySelectorAll(".p")];
    const points = data.points;
    const tip = document.getElementById("tip");
    const figure = map.parentElement;
    const colour = document.getElementById("map-colour");
    const showDropped = document.getElementById("map-dropped");
    let current = -1;
    let pinned = false;
    let cluster = null;

    const visible = (i) => points[i][6] < 0 || showDropped.checked;

    // The class that gives point i its colour, by what the reader chose.
    function tint(i) {
      const [, , , , label, confidence, reason, group] = points[i];
      if (colour.value === "kept") return reason < 0 ? "f-kept" : "f-dropped";
      if (colour.value === "reason") return reason < 0 ? "f-before" : `l${reason % 7}`;
      if (colour.value === "cluster") return group === null ? "l7" : `l${group % 7}`;
      if (colour.value === "confidence") {
        return confidence === null ? "l7" : `q${Math.max(0, Math.min(4, Math.floor(confidence * 10) - 5))}`;
      }
      return label < 0 ? "l7" : `l${Math.min(label, 7)}`;
    }

    function paint() {
      marks.forEach((mark, i) => {
        const names = ["p", tint(i)];
        if (points[i][6] >= 0) names.push("drop");
        if (cluster !== null && points[i][7] !== cluster) names.push("dim");
        if (i === current) names.push("on");
        mark.setAttribute("class", names.join(" "));
      });
      map.classList.toggle("hide-dropped", !showDropped.checked);
      for (const legend of document.querySelectorAll("[data-colours]")) {
        legend.hidden = legend.dataset.colours !== colour.value;
      }
    }

    function fill(i) {
      const [, , id, text, label, confidence, reason, group] = points[i];
      const body = document.createElement("p");
      body.textContent = text;
      const list = document.createElement("dl");
      const facts = [
        ["label", label < 0 ? "none" : data.labels[label]],
        ["confidence", confidence === null ? "–" : confidence.toFixed(2)],
        ["row", reason < 0 ? "kept" : `dropped: ${data.reasons[reason]}`],
        ["cluster", group === null ? "–" : `${group} (${data.words[group] ?? "–"})`],
        ["id", id],
      ];
      for (const [name, value] of facts) {
        list.append(document.createElement("dt"), document.createElement("dd"));
        list.children[list.children.length - 2].textContent = name;
        list.lastChild.textContent = value;
      }
      tip.replaceChildren(body, list);
    }

    function show(i) {
      if (i === current) return;
      if (current >= 0) marks[current].classList.remove("on");
      current = i;
      tip.hidden = i < 0;
      map.dataset.shown = i < 0 ? "" : points[i][2];
      if (i < 0) return;
      marks[i].classList.add("on");
      fill(i);
      const box = map.getBoundingClientRect();
      const frame = figure.getBoundingClientRect();
      const x = (points[i][0] / map.viewBox.baseVal.width) * box.width;
      const y = (points[i][1] / map.viewBox.baseVal.height) * box.height;
      const left = x + 16 + tip.offsetWidth > box.width ? x - 16 - tip.offsetWidth : x + 16;
      tip.style.left = `${Math.max(0, left)}px`;
      tip.style.top = `${box.top - frame.top + Math.max(4, Math.min(y - 20, box.height - tip.offsetHeight - 4))}px`;
    }

    function place(event) {
      const box = map.getBoundingClientRect();
      const scale = map.viewBox.baseVal.width / box.width;
      return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale, scale];
    }

    function nearest(event) {
      const [x, y, scale] = place(event);
      let best = -1;
      let distance = (18 * scale) ** 2;
      points.forEach((point, i) => {
        const d = (point[0] - x) ** 2 + (point[1] - y) ** 2;
        if (d < distance && visible(i)) [best, distance] = [i, d];
      });
      return best;
    }

    function pin(on) {
      pinned = on && current >= 0;
      tip.classList.toggle("pinned", pinned);
    }

    map.addEventListener("pointermove", (event) => {
      if (!pinned) show(nearest(event));
    });
    map.addEventListener("pointerleave", () => {
      if (!pinned) show(-1);
    });
    map.addEventListener("click", (event) => {
      const found = nearest(event);
      const again = pinned && found === current;
      show(found);
      pin(!again);
    });

    // Arrow keys go to the nearest point on that side; Escape lets go.
    const sides = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    map.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        pin(false);
        show(-1);
      }
      const side = sides[event.key];
      if (!side) return;
      event.preventDefault();
      const from = current < 0 ? [map.viewBox.baseVal.width / 2, map.viewBox.baseVal.height / 2] : points[current];
      let best = -1;
      let cost = Infinity;
      points.forEach((point, i) => {
        const [dx, dy] = [point[0] - from[0], point[1] - from[1]];
        const along = dx * side[0] + dy * side[1];
        const across = Math.abs(dx * side[1]) + Math.abs(dy * side[0]);
        if (along > 0.5 && along + 2 * across < cost && visible(i)) [best, cost] = [i, along + 2 * across];
      });
      if (best >= 0) show(best);
    });
    map.addEventListener("blur", () => {
      if (!pinned) show(-1);
    });

    colour.addEventListener("change", paint);
    showDropped.addEventListener("change", () => {
      pin(false);
      show(-1);
      paint();
    });
    const buttons = [...document.querySelectorAll("button[data-cluster]")];
    for (const button of buttons) {
      button.hidden = false;
      button.addEventListener("click", () => {
        const chosen = Number(button.dataset.cluster);
        cluster = cluster === chosen ? null : chosen;
        for (const other of buttons) {
          other.setAttribute("aria-pressed", String(Number(other.dataset.cluster) === cluster));
        }
        paint();
      });
    }
    document.getElementById("map-controls").hidden = false;
    map.setAttribute("tabindex", "0");
    paint();
    map.dataset.points = String(marks.length === points.length ? marks.length : -1);
  }

  followReader();
  const map = document.getElementById("map");
  if (map) startMap(map, JSON.parse(document.getElementById("map-data").textContent));
  page.dataset.ready = "yes";
})();
