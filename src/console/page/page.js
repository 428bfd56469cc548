// The page of one-balance: it signs in, shows the pool, refreshes it, and sends edits.
//
// All external text is inserted into the document as text, never as markup. The AUTH_KEY is only in this
// tab's session storage and in one header; keys that are added are only in the form's field until they
// are sent. A row is kept as long as its key is shown, so that a refresh preserves the focus and the
// selection.
"use strict";

const SLOT = "one-balance-auth-key";
const REFRESH = 3000;
const PAGE = 50;
const $ = (id) => document.getElementById(id);

const view = { provider: "", state: "", search: "", sort: "", offset: 0 };
const chosen = new Set();
const rows = new Map();
let pool = null;
let ahead = 0; // the server's clock minus this one, in ms
let turn = 0; // the number of the last refresh that was started
let timer = 0;
let lost = ""; // why the last refresh failed
let busy = false; // whether an edit is under way

// ---- Requests to the filter

async function call(path, body) {
  const options = {
    headers: { authorization: `Bearer ${sessionStorage.getItem(SLOT)}` },
    cache: "no-store",
    credentials: "omit",
  };
  if (body) {
    options.method = "POST";
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("No answer; is Envoy up, and the network?");
  }
  const json = await answer.json().catch(() => null);
  if (answer.ok) return json;
  const error = new Error(json?.error?.message ?? `Envoy answered ${answer.status}.`);
  error.status = answer.status;
  throw error;
}

async function refresh() {
  clearTimeout(timer);
  // A delayed refresh may run after the user has signed out.
  if (!sessionStorage.getItem(SLOT)) return;
  const mine = ++turn;
  const query = Object.entries({ ...view, limit: PAGE }).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  try {
    const answer = await call(`status?${query.join("&")}`);
    if (mine !== turn) return;
    pool = answer;
    ahead = Date.parse(pool.time) - Date.now();
    if (!pool.providers.some((entry) => entry.provider === view.provider) && pool.providers.length) {
      view.provider = pool.providers[0].provider;
      view.offset = 0;
      return refresh();
    }
    if (pool.keys && view.offset && !pool.keys.list.length) {
      view.offset = Math.max(0, Math.floor((pool.keys.found - 1) / PAGE) * PAGE);
      return refresh();
    }
    // The result of an edit stays visible.
    if (lost && $("problem").textContent === lost) problem("");
    lost = "";
    show();
  } catch (error) {
    if (mine !== turn) return;
    if (error.status === 401 || error.status === 403) return leave(error.message);
    // The provider that was shown is no longer in the configuration.
    if (error.status === 404 && view.provider) view.provider = "";
    lost = error.message;
    problem(lost);
  }
  if (sessionStorage.getItem(SLOT) && !document.hidden) timer = setTimeout(refresh, REFRESH);
}

// Sends an edit and returns why it failed; nothing if it succeeded. Only one edit runs at a time: D1 may take
// seconds, and a second click does not mean a second edit.
async function edit(verb, body, done) {
  if (busy) return "The previous edit is still under way.";
  busy = true;
  problem("");
  $("news").textContent = "Waiting for D1…";
  let wrong = "";
  let news = "";
  try {
    const { changed, unchanged, unknown } = await call(`keys/${verb}`, body);
    const rest = [unchanged && `${unchanged} unchanged`, unknown && `${unknown} not in D1`].filter(Boolean);
    news = `${[`${changed} ${changed === 1 ? "key" : "keys"} ${done}`, ...rest].join(", ")}.`;
    // What was chosen meanwhile remains chosen.
    for (const id of body.ids ?? []) chosen.delete(id);
  } catch (error) {
    wrong = error.message;
  }
  busy = false;
  // The user has signed out meanwhile.
  if (!sessionStorage.getItem(SLOT)) return wrong;
  $("news").textContent = news;
  if (wrong) problem(wrong);
  await refresh();
  return wrong;
}

// ---- Signing in and out

async function enter(event) {
  event.preventDefault();
  const key = $("auth").value.trim();
  $("auth").value = "";
  if (!/^[!-~]+$/.test(key)) return leave("An AUTH_KEY has letters, digits and signs of ASCII only.");
  sessionStorage.setItem(SLOT, key);
  await refresh();
  if (pool) $("search").focus();
}

function leave(message) {
  clearTimeout(timer);
  turn++;
  sessionStorage.removeItem(SLOT);
  pool = null;
  Object.assign(view, { provider: "", state: "", search: "", sort: "", offset: 0 });
  $("filter").reset();
  chosen.clear();
  rows.clear();
  $("keys").replaceChildren();
  $("providers").replaceChildren();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  $("sync").textContent = $("news").textContent = "";
  $("sync").className = "";
  $("pool").hidden = $("leave").hidden = true;
  $("door").hidden = false;
  problem(message);
  $("auth").focus();
}

function problem(text, place = "problem") {
  if ($(place).textContent !== text) $(place).textContent = text;
  $(place).hidden = !text;
}

// ---- Showing

function node(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function show() {
  $("door").hidden = true;
  $("pool").hidden = $("leave").hidden = false;
  document.body.classList.toggle("editable", pool.editable);
  showSync();
  showProviders();
  $("empty").hidden = pool.providers.length > 0;
  $("read-only").hidden = pool.editable;
  $("read-only").textContent = pool.d1
    ? "Read-only, because of the configuration (console)."
    : "Read-only: without D1 the keys are in the configuration.";
  showKeys();
  showChosen();
  tick();
}

function showSync() {
  const { d1, version } = pool;
  let text = `${version}, without D1`;
  if (d1?.failure) text = `${version}, D1: ${d1.advice}${d1.loaded ? `; it was read ${d1.age_seconds} s ago` : ""}`;
  else if (d1 && !d1.loaded) text = `${version}, D1 has not been read yet`;
  else if (d1) text = `${version}, D1 was read ${d1.age_seconds} s ago`;
  if (d1?.waiting_to_be_written) text += `; ${d1.waiting_to_be_written} changes wait`;
  $("sync").textContent = text;
  $("sync").className = d1?.failure ? "bad" : "";
}

function showProviders() {
  const list = $("providers");
  const known = new Map([...list.children].map((item) => [item.dataset.provider, item]));
  const items = pool.providers.map((entry) => {
    const item = known.get(entry.provider) ?? provider(entry.provider);
    const counts = ["ready", "cooling", "resting", "blocked"]
      .filter((state) => entry[state] || state === "ready")
      .map((state) => node("span", { className: state, textContent: `${entry[state]} ${state}` }));
    const waits = [];
    if (entry.rests_until) waits.push(node("span", { className: "cooling" }, "rests for ", countdown(entry.rests_until)));
    if (entry.recovery_seconds !== null) {
      const end = new Date(Date.parse(pool.time) + 1000 * entry.recovery_seconds).toISOString();
      waits.push(node("span", { className: "cooling" }, "no key for some model for ", countdown(end)));
    }
    const words = [...counts, ...waits].flatMap((part, index) => (index ? [", ", part] : [part]));
    const button = item.firstChild;
    button.setAttribute("aria-pressed", entry.provider === view.provider);
    button.lastChild.replaceChildren(...words);
    return item;
  });
  if (items.length !== list.children.length || items.some((item, index) => list.children[index] !== item)) {
    list.replaceChildren(...items);
  }
}

function provider(name) {
  const button = node("button", { type: "button" }, node("strong", { textContent: name }), node("span"));
  button.addEventListener("click", () => {
    Object.assign(view, { provider: name, offset: 0 });
    chosen.clear();
    refresh();
  });
  const item = node("li", {}, button);
  item.dataset.provider = name;
  return item;
}

function showKeys() {
  const list = pool.keys?.list ?? [];
  const shown = list.map((key) => {
    const row = rows.get(key.id) ?? newRow(key);
    rows.set(key.id, row);
    fill(row, key);
    return row;
  });
  const body = $("keys");
  // Moving a row that is already in order would take the focus from it.
  shown.forEach((row, index) => {
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
  });
  while (body.children.length > shown.length) body.lastChild.remove();
  const ids = new Set(list.map((key) => key.id));
  for (const id of rows.keys()) if (!ids.has(id)) rows.delete(id);
  for (const id of chosen) if (!ids.has(id)) chosen.delete(id);
  const { found = 0, offset = 0 } = pool.keys ?? {};
  $("keys-title").textContent = view.provider ? `Keys of ${view.provider}` : "Keys";
  $("range").textContent = found ? `${offset + 1} to ${offset + list.length} of ${found}` : "none";
  enable($("previous"), offset > 0, $("next"));
  enable($("next"), offset + list.length < found, $("previous"));
}

// A button that is disabled loses the focus; the other one gets it.
function enable(button, on, other) {
  const focused = document.activeElement === button;
  button.disabled = !on;
  if (!on && focused) other.disabled ? $("search").focus() : other.focus();
}

function newRow(key) {
  const row = node("tr", {}, ...Array.from({ length: 6 }, () => node("td")));
  row.setAttribute("role", "row");
  for (const cell of row.cells) cell.setAttribute("role", "cell");
  row.cells[0].className = "edits";
  if (key.source === "d1") {
    const box = node("input", { type: "checkbox", value: key.id });
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(key.id);
      else chosen.delete(key.id);
      showChosen();
    });
    row.cells[0].append(box);
  }
  const place = key.source === "d1" ? "" : ", of the configuration";
  row.cells[1].append(node("code", { textContent: key.mask }), node("small", { textContent: key.id + place }));
  row.cells[2].dir = "auto";
  return row;
}

function fill(row, key) {
  // Only what has changed is created again, because the focus may be on the rest.
  const now = JSON.stringify([key, pool.editable]);
  if (row.dataset.shown === now) return;
  row.dataset.shown = now;
  const [choice, , remark, state, coolings, last] = row.cells;
  choice.firstChild?.setAttribute("aria-label", `Choose ${key.mask} ${key.remark ?? ""}`);
  remark.textContent = key.remark ?? "";
  state.replaceChildren(node("span", { className: key.state, textContent: key.state }));
  if (key.blocked_since) state.append(node("small", {}, "since ", when(key.blocked_since)));
  const pauses = [...(key.resting ? [key.resting] : []), ...key.coolings].map((pause) => cooling(key, pause));
  if (key.more_coolings) pauses.push(node("li", { textContent: `and ${key.more_coolings} more` }));
  coolings.replaceChildren(...(pauses.length ? [node("ul", {}, ...pauses)] : []));
  last.replaceChildren(...(key.last ? [key.last.evidence, node("small", {}, when(key.last.at))] : []));
}

function cooling(key, pause) {
  const name = pause.model ?? "all models";
  const item = node("li", {}, node("code", { textContent: name || "no model" }), " ", countdown(pause.until));
  item.append(` ${pause.on_trial ? "on trial, " : ""}${pause.reason.replaceAll("_", " ")} `);
  if (pool.editable && key.source === "d1" && pause.model !== null) {
    const button = node("button", { type: "button", textContent: "clear" });
    button.setAttribute("aria-label", `Clear the cooling of ${key.mask} for ${name}`);
    button.addEventListener("click", () => edit("clear", { ids: [key.id], model: pause.model }, "cleared"));
    item.append(button);
  }
  return item;
}

function showChosen() {
  for (const row of $("keys").rows) {
    const box = row.querySelector("input");
    if (box) box.checked = chosen.has(box.value);
  }
  const boxes = $("keys").querySelectorAll("input").length;
  $("choose-all").checked = boxes > 0 && chosen.size === boxes;
  $("choose-all").indeterminate = chosen.size > 0 && chosen.size < boxes;
  $("chosen-count").textContent = `${chosen.size} chosen`;
  for (const id of ["activate", "clear", "delete"]) enable($(id), chosen.size > 0, $("choose-all"));
}

// ---- Times

function when(text) {
  return node("time", { dateTime: text, textContent: new Date(text).toLocaleString([], { timeZoneName: "short" }) });
}

function countdown(until) {
  const made = node("time", { dateTime: until, className: "countdown" });
  made.textContent = left(until);
  return made;
}

function left(until) {
  const seconds = Math.max(0, Math.ceil((Date.parse(until) - Date.now() - ahead) / 1000));
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
}

function tick() {
  for (const made of document.querySelectorAll(".countdown")) made.textContent = left(made.dateTime);
}

// ---- Edits

function sure(text) {
  $("sure-text").textContent = text;
  $("sure").showModal();
  return new Promise((resolve) => {
    const close = (yes) => () => {
      $("sure").onclose = null;
      $("sure").close();
      resolve(yes);
    };
    $("sure-yes").onclick = close(true);
    $("sure-no").onclick = $("sure").onclose = close(false);
  });
}

function openAdd() {
  const options = pool.known_providers.map((name) => node("option", { textContent: name }));
  $("add-provider").replaceChildren(...options);
  const known = pool.known_providers.includes(view.provider);
  $("add-provider").value = known ? view.provider : pool.known_providers[0];
  $("add").showModal();
  $("add-keys").focus();
}

async function add(event) {
  event.preventDefault();
  const keys = $("add-keys").value.split(/[\s,]+/).filter(Boolean);
  const provider = $("add-provider").value;
  const body = { provider, keys };
  if ($("add-remark").value.trim()) body.remark = $("add-remark").value.trim();
  const wrong = await edit("add", body, "added");
  problem(wrong, "add-problem");
  if (!wrong) $("add").close();
}

async function removeChosen() {
  const ids = [...chosen];
  if (await sure(`Delete ${ids.length} of D1's keys for good?`)) await edit("delete", { ids }, "deleted");
}

async function removeBlocked() {
  const provider = view.provider;
  const count = pool.providers.find((entry) => entry.provider === provider)?.blocked ?? 0;
  const most = count > 1000 ? ", a thousand at a time" : "";
  if (!(await sure(`Delete the ${count} blocked keys of ${provider} that are in D1 for good${most}?`))) return;
  await edit("delete-blocked", { provider }, "deleted");
}

// ---- Events

$("enter").addEventListener("submit", enter);
$("leave").addEventListener("click", () => leave(""));
$("filter").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["search", "state", "sort"]) {
  $(id).addEventListener("input", () => {
    Object.assign(view, { [id]: $(id).value.trim(), offset: 0 });
    clearTimeout(timer);
    timer = setTimeout(refresh, 200);
  });
}
$("previous").addEventListener("click", () => turnPage(-PAGE));
$("next").addEventListener("click", () => turnPage(PAGE));
$("choose-all").addEventListener("change", () => {
  for (const box of $("keys").querySelectorAll("input")) {
    if ($("choose-all").checked) chosen.add(box.value);
    else chosen.delete(box.value);
  }
  showChosen();
});
$("activate").addEventListener("click", () => edit("activate", { ids: [...chosen] }, "re-activated"));
$("clear").addEventListener("click", () => edit("clear", { ids: [...chosen] }, "cleared"));
$("delete").addEventListener("click", removeChosen);
$("delete-blocked").addEventListener("click", removeBlocked);
$("add-open").addEventListener("click", openAdd);
$("add-form").addEventListener("submit", add);
$("add-cancel").addEventListener("click", () => $("add").close());
// However it is closed, pasted keys do not stay in it.
$("add").addEventListener("close", () => {
  $("add-form").reset();
  problem("", "add-problem");
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && sessionStorage.getItem(SLOT)) refresh();
});
setInterval(() => pool && tick(), 1000);

function turnPage(by) {
  view.offset = Math.max(0, view.offset + by);
  refresh();
}

if (sessionStorage.getItem(SLOT)) refresh();
