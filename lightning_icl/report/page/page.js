"use strict";
// The page's only script: the theme button, and the list of queries, of which one page at a time is in the document.
// Text from data enters through textContent alone.
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const theme = byId("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")].filter((item) => !item.closest("#query-list"));
    for (const item of closed) item.open = true;
  });
  addEventListener("afterprint", () => { for (const item of closed) item.open = false; });

  // A name in a legend switches its curves off and on; a pointer or the focus on it sets them off from the others.
  for (const level of document.querySelectorAll(".level")) {
    const curves = [...level.querySelectorAll(".charts [data-curve]")], buttons = [...level.querySelectorAll(".legend [data-curve]")];
    const press = (button, on) => {
      button.setAttribute("aria-pressed", String(on));
      for (const curve of curves) if (curve.dataset.curve === button.dataset.curve) curve.classList.toggle("off", !on);
    };
    for (const button of buttons) {
      const light = (on) => () => {
        level.classList.toggle("focused", on);
        for (const curve of curves) curve.classList.toggle("lit", on && curve.dataset.curve === button.dataset.curve);
      };
      button.addEventListener("click", () => press(button, button.getAttribute("aria-pressed") !== "true"));
      for (const event of ["pointerenter", "focus"]) button.addEventListener(event, light(true));
      for (const event of ["pointerleave", "blur"]) button.addEventListener(event, light(false));
    }
    const all = level.querySelector(".legend .all");
    all?.addEventListener("click", () => {
      const on = all.getAttribute("aria-pressed") !== "true";
      all.setAttribute("aria-pressed", String(on));
      for (const button of buttons) if ("control" in button.dataset) press(button, on);
    });
  }

  const block = byId("query-data");
  if (!block) return;
  const { kinds, tasks, rows } = JSON.parse(block.textContent);
  const VIEWS = ["ZSL", "ICL", "FT"], SIZE = 25;
  const [task, kind, text] = ["query-task", "query-kind", "query-text"].map(byId);
  let found = rows, page = 0;

  const answer = (row, label) => (label === null || label === undefined ? "–" : tasks[row[0]].labels[label] ?? String(label));
  const words = new Array(rows.length);
  const wordsOf = (number) => {
    const row = rows[number];
    return (words[number] ??= `${row[1]}\n${row[6] ?? ""}\n${answer(row, row[2])}\n${row[4].map((label) => answer(row, label)).join("\n")}`.toLowerCase());
  };

  function choose() {
    const wanted = text.value.trim().toLowerCase();
    const ofTask = task.value === "" ? -1 : Number(task.value), ofKind = kinds.findIndex(([word]) => word === kind.value);
    const inTask = (row) => ofTask < 0 || row[0] === ofTask;
    found = rows.filter((row, number) => inTask(row) && (ofKind < 0 || row[3] === ofKind) && (!wanted || wordsOf(number).includes(wanted)));
    page = 0;
    const counts = kinds.map(() => 0);
    for (const row of rows) if (inTask(row)) counts[row[3]] += 1;
    kinds.forEach(([, title], number) => { kind.options[number + 1].textContent = `${title} (${counts[number].toLocaleString("en")})`; });
    show();
  }

  function show() {
    const first = page * SIZE, pages = Math.max(1, Math.ceil(found.length / SIZE));
    byId("query-list").replaceChildren(...found.slice(first, first + SIZE).map(item));
    byId("query-count").textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} queries`;
    byId("query-page").textContent = `page ${page + 1} of ${pages}`;
    byId("query-pages").hidden = pages === 1;
    byId("query-previous").disabled = page === 0;
    byId("query-next").disabled = page + 1 >= pages;
  }

  function item(row) {
    const [, index, gold, outcome, chosen, scores, prompt] = row;
    const entry = make("li");
    const top = make("p", "query-top");
    top.append(make("span", `kind ${kinds[outcome][0]}`, kinds[outcome][1]), make("span", "where", `${tasks[row[0]].name}, row ${index}`));
    entry.append(top);
    if (prompt !== null) entry.append(make("p", "prompt", prompt));
    const line = make("p", "answers");
    line.append(pill("gold", answer(row, gold), ""));
    chosen.forEach((label, view) => { if (label !== null) line.append(pill(VIEWS[view], answer(row, label), label === gold ? "good" : "bad")); });
    entry.append(line);
    if (scores.some((list) => list)) entry.append(scoreTable(row, scores));
    return entry;
  }

  function pill(name, value, mood) {
    const box = make("span", `answer ${mood}`);
    box.append(make("small", "", name), ` ${value}${mood ? (mood === "good" ? " ✓" : " ✗") : ""}`);
    return box;
  }

  function scoreTable(row, scores) {
    const box = make("details"), table = make("table", "figures"), head = make("tr");
    box.append(make("summary", "", "scores"), make("p", "hint", "Mean log-probability of each answer's tokens."), table);
    head.append(make("th", "", ""));
    for (const label of scores.find((list) => list).keys()) head.append(make("th", "", answer(row, label)));
    table.append(head);
    scores.forEach((list, view) => {
      if (!list) return;
      const line = make("tr");
      line.append(make("th", "", VIEWS[view]));
      for (const score of list) line.append(make("td", "", score === null ? "–" : score.toFixed(3)));
      table.append(line);
    });
    return box;
  }

  // #queries?task=NAME&kind=WORD&find=TEXT leads straight to some queries.
  function follow() {
    const [, query] = location.hash.split("?");
    if (query === undefined) return;
    const wanted = new URLSearchParams(query), named = tasks.findIndex(({ name }) => name === wanted.get("task"));
    task.value = named < 0 ? "" : String(named);
    kind.value = kinds.some(([word]) => word === wanted.get("kind")) ? wanted.get("kind") : "";
    text.value = wanted.get("find") ?? "";
    choose();
    byId("queries").scrollIntoView();
  }

  task.append(new Option("all", ""), ...tasks.map(({ name }, number) => new Option(name, String(number))));
  kind.append(new Option("all", ""), ...kinds.map(([word, title]) => new Option(title, word)));
  byId("query-form").hidden = false;
  byId("query-form").addEventListener("submit", (event) => event.preventDefault());
  for (const control of [task, kind, text]) control.addEventListener("input", choose);
  byId("query-previous").addEventListener("click", () => { page -= 1; show(); });
  byId("query-next").addEventListener("click", () => { page += 1; show(); });
  for (const link of document.querySelectorAll("a.jump"))
    link.href = `#queries?${new URLSearchParams({ task: link.dataset.task, kind: link.dataset.kind })}`;
  addEventListener("hashchange", follow);
  choose();
  follow();
})();
