// The form that stays, and the lights. The server draws the same without this script.
import { checkWhileTyping } from "./check.js";
import { showErrors } from "./fields.js";

const BACKOFF_FIRST = 500; // ms until the first attempt to get a lost socket back; doubles
const BACKOFF_MAX = 20_000;
const GREEN_SHOWN = 1200; // ms that all green is shown before the page goes on
const EXPIRED = 4401; // close codes of front/sockets.py
const FOREIGN = 4403;
const NORMAL = 1000;

const data = JSON.parse(document.getElementById("signup-data").textContent);
const form = document.getElementById("signup-form"); // null on the status page
const formPanel = document.getElementById("form-panel");
const panel = document.getElementById("lights-panel");
const list = document.getElementById("lights");

// What has been shown, for tests and for who looks into it; kept for the tab, as the page moves on by itself.
const seen = (window.signupSync = { ready: false, connected: false, shown: [] });

let page = data.page; // {signupId, ticket, socketPath, statusPath}
let version = -1; // of what is shown; 0 is what the page draws before it knows anything
let isComplete = false;
let isPosting = false;
let held = []; // what the socket says while the post is under way: perhaps of an earlier attempt
let stillWrong = () => ({}); // what is known to be wrong with the form beside what its answer says
let unsaid = []; // what is announced when the present work is done
let socket = null;
let retry = 0;
let failures = 0;

// --- the lights ---

function lightOf(service) {
  let light = [...list.children].find((each) => each.dataset.service === service);
  if (!light) {
    light = list.firstElementChild.cloneNode(true);
    light.dataset.service = service;
    light.querySelector(".light-name").textContent = nameOf(service);
    list.append(light);
  }
  return light;
}

const nameOf = (service) => data.words.names[service] ?? service.charAt(0).toUpperCase() + service.slice(1);

const wordOf = ({ status, reason }) =>
  (status === "FAIL" && data.words.reasons[reason]) || data.words.statuses[status];

// How long a light took, of milliseconds.
function tookOf(took) {
  if (took === undefined) return "";
  const [, unit, words] = data.words.took.find(([limit]) => limit === null || took < limit);
  return words.replace("{n}", (took / unit).toFixed(took / unit < 10 ? 1 : 0));
}

function draw(state) {
  if (state.signupId !== page.signupId || state.version <= version) return;
  version = state.version;
  isComplete = state.complete;
  const changed = [];
  for (const [service, light] of Object.entries(state.services)) {
    const item = lightOf(service);
    if (item.dataset.status !== light.status && light.status !== "PENDING") changed.push(`${nameOf(service)}: ${wordOf(light)}.`);
    item.dataset.status = light.status;
    item.querySelector(".light-word").textContent = wordOf(light);
    item.querySelector(".light-took").textContent = tookOf(state.took?.[service]);
  }
  for (const item of [...list.children]) if (!(item.dataset.service in state.services)) item.remove();
  record(state);
  conclude(state, changed);
}

function record(state) {
  const lights = Object.entries(state.services).map(([service, light]) => [service, light.status]);
  seen.shown.push({ ...Object.fromEntries(lights), version: state.version });
  try {
    sessionStorage.setItem("signupSync.shown", JSON.stringify(seen.shown));
  } catch {
    // Where the browser keeps nothing for this site. The lights need none of it.
  }
}

function conclude(state, changed) {
  const lights = Object.values(state.services);
  const { auth } = state.services;
  let outcome = state.awaiting ? "awaiting" : "pending";
  if (auth.status === "FAIL") outcome = "refused";
  else if (isComplete) outcome = lights.every((light) => light.status === "SUCCESS") ? "green" : "red";
  if (outcome === "refused" && form) {
    const { field, text } = data.words.refusals[auth.reason] ?? { field: "", text: data.words.unknownRefusal };
    backToForm({ [field]: [text] });
    return;
  }
  if (outcome !== "pending" || !["delayed", "stalled"].includes(panel.dataset.outcome)) say(outcome, state);
  const hasNews = isComplete || outcome === "awaiting";
  announce([...changed, ...(hasNews ? [document.getElementById("lights-title").textContent] : [])].join(" "));
  if (isComplete) disconnect();
  if (outcome === "green") setTimeout(() => location.replace(data.loginPath), GREEN_SHOWN);
}

function say(outcome, state) {
  const { title, text, action } = data.words.outcomes[outcome];
  const red = Object.entries(state?.services ?? {}).filter(([, light]) => light.status === "FAIL");
  panel.dataset.outcome = outcome;
  document.getElementById("lights-title").textContent = title;
  document.getElementById("lights-text").textContent = text.replace("{services}", red.map(([service]) => nameOf(service)).join(", "));
  for (const link of panel.querySelectorAll("[data-action]")) link.hidden = link.dataset.action !== action;
}

// What comes at once is said at once: a second text would take the place of the first before anybody heard it.
function announce(text) {
  if (!text) return;
  if (!unsaid.length) {
    queueMicrotask(() => {
      document.getElementById("announcement").textContent = unsaid.join(" ");
      unsaid = [];
    });
  }
  unsaid.push(text);
}

function notice(text) {
  const place = document.getElementById("notice");
  if (place.textContent === text) return; // said already, with the attempt before
  place.textContent = text;
  place.hidden = !text;
  announce(text);
}

// --- the socket ---

function connect() {
  disconnect();
  const address = new URL(page.socketPath, location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const mine = (socket = new WebSocket(address));
  mine.addEventListener("open", () => {
    seen.connected = true;
    const wasLost = !document.getElementById("notice").hidden;
    notice("");
    if (wasLost) announce(data.words.notices.back);
  });
  mine.addEventListener("message", (event) => {
    failures = 0;
    const message = JSON.parse(event.data);
    if (isPosting) held.push(message);
    else take(message);
  });
  mine.addEventListener("close", (event) => {
    if (mine === socket) lose(event.code);
  });
}

function disconnect() {
  clearTimeout(retry);
  const old = socket;
  socket = null;
  seen.connected = false;
  old?.close(NORMAL);
}

function lose(code) {
  socket = null;
  seen.connected = false;
  if (isPosting) return; // the answer brings a fresh ticket, and then we connect again
  if (code === EXPIRED || code === FOREIGN) {
    notice(data.words.notices[code === EXPIRED ? "expired" : "foreign"]);
    return;
  }
  notice(data.words.notices.lost);
  if (failures > 0) ask();
  const pause = Math.min(BACKOFF_FIRST * 2 ** failures++, BACKOFF_MAX);
  retry = setTimeout(connect, pause * (0.5 + Math.random() / 2));
}

// Where no socket can be had, the state comes the plain way, with each attempt.
async function ask() {
  try {
    const response = await fetch(page.statusPath, { headers: { Accept: "application/json" } });
    const { state } = await response.json();
    if (state) draw(state);
  } catch {
    // The notice says already that there is no connection.
  }
}

function take(message) {
  if (message.services) {
    draw(message);
    return;
  }
  if (isComplete || message.signupId !== page.signupId) return;
  if (message.expired) {
    disconnect();
    say("lapsed");
    announce(document.getElementById("lights-title").textContent);
    return;
  }
  const slowness = message.stalled || panel.dataset.outcome === "stalled" ? "stalled" : "delayed";
  if (panel.dataset.outcome === slowness) return;
  say(slowness);
  announce(document.getElementById("lights-title").textContent);
}

// --- the form ---

async function submit(event) {
  event.preventDefault();
  if (isPosting) return;
  begin();
  let answer;
  try {
    const response = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { Accept: "application/json", traceparent: traceparent() },
    });
    // The view's own JSON: the gateway's problem documents are of another type.
    const isOurs = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
    answer = isOurs ? await response.json() : { errors: { "": [wordsOf(response.status)] } };
  } catch {
    answer = { errors: { "": [data.words.notices.noAnswer] } };
  }
  isPosting = false;
  form.querySelector("[type=submit]").disabled = false;
  if (answer.formTicket) form.elements.ticket.value = answer.formTicket;
  if (answer.ticket) turnTo(answer);
  if (answer.errors) backToForm({ ...stillWrong(), ...answer.errors }, "" in answer.errors);
  else [...held, answer.state].forEach(take);
  held = [];
}

// The W3C's trace context: the sign-up's id is its trace's, and this request a step in it.
function traceparent() {
  const step = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0"));
  return `00-${page.signupId.replaceAll("-", "")}-${step.join("")}-01`;
}

// What an answer means that the form's view has not written: Django's own, or the gateway's.
function wordsOf(status) {
  const { stale, tooLong, broken } = data.words.notices;
  return { 400: tooLong, 403: stale, 413: tooLong }[status] ?? broken;
}

function begin() {
  isPosting = true;
  held = [];
  failures = 0;
  form.querySelector("[type=submit]").disabled = true;
  // A reload now shows the lights and not an empty form, whose sign-up would be another one.
  history.replaceState(null, "", page.statusPath);
  formPanel.hidden = true;
  panel.hidden = false;
  seen.shown = [];
  version = -1;
  const services = [...list.children].map((item) => [item.dataset.service, { status: "PENDING" }]);
  draw({ signupId: page.signupId, version: 0, complete: false, services: Object.fromEntries(services) });
  say("pending");
  document.getElementById("lights-title").focus();
  connect();
}

// The server may have found that this is another sign-up than the page thought.
function turnTo(answer) {
  const isOther = answer.signupId !== page.signupId;
  page = { signupId: answer.signupId, ticket: answer.ticket, socketPath: answer.socketPath, statusPath: answer.statusPath };
  if (answer.errors) return;
  history.replaceState(null, "", page.statusPath);
  if (isOther || !socket) connect();
}

function backToForm(errors, keepPassword = false) {
  disconnect();
  notice("");
  history.replaceState(null, "", data.formPath);
  panel.hidden = true;
  formPanel.hidden = false;
  if (!keepPassword) for (const input of form.querySelectorAll("[type=password]")) input.value = "";
  showErrors(form, errors);
}

// --- begin ---

window.addEventListener("online", () => {
  if (!socket && !isComplete && !panel.hidden && !isPosting) connect();
});
if (form) {
  form.addEventListener("submit", submit);
  stillWrong = checkWhileTyping(form, { path: data.checkPath, words: data.words.checks });
  const summary = document.getElementById("error-summary");
  if (!summary.hidden) summary.focus();
} else {
  if (data.state) draw(data.state);
  if (!isComplete) connect();
}
document.getElementById("languages").addEventListener("submit", (event) => {
  // The address may be that of the lights by now.
  event.target.elements.next.value = location.pathname;
});
seen.ready = true;
