// The sign-up form and the lights on one page. Without this script, the server renders them as separate pages.
import { ask, follow } from "./channel.js";
import { checkWhileTyping } from "./check.js";
import { showErrors } from "./fields.js";

const GREEN_SHOWN = 1200; // ms for which all green lights are shown before the page moves on
const UNANSWERED_AFTER = 5000; // ms until the user is told that the form has no answer yet
const ANSWERED_WITHIN = 30_000; // ms after which the form's answer counts as lost; the server's timeout is shorter
const REFUSAL_WAITS = 3000; // ms for which a refusal from the channel waits for the form's answer, which has more detail

const data = JSON.parse(document.getElementById("signup-data").textContent);
const form = document.getElementById("signup-form"); // null on the status page
const formPanel = document.getElementById("form-panel");
const panel = document.getElementById("lights-panel");
const list = document.getElementById("lights");
const languages = document.querySelectorAll("#languages button");

// The states shown so far, for tests and debugging; also kept in sessionStorage, because the page moves on by itself.
const seen = (window.signupSync = { ready: false, connected: false, shown: [] });

let page = data.page; // {signupId, ticket, socketPath, statusPath}
let version = -1; // of the state shown; 0 is the page's own initial state
let isComplete = false;
let posting = null; // the AbortController of the form's request while it has no answer
let deadlines = []; // timers that start when the form is sent
let unanswered = {}; // a sign-up that was sent without getting an answer: its id, and the form's content
let held = []; // messages that wait for the form's answer
let mayShow = true; // whether messages before the form's answer are about its current content
let stillWrong = () => ({}); // returns known errors that the form's answer may lack
let unsaid = []; // texts to be announced at the end of the current task
let channel = null;
const notices = { form: "", channel: "" };

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

// Formats the milliseconds that a light took.
function tookOf(took) {
  if (took === undefined) return "";
  const [, unit, words] = data.words.took.find(([limit]) => limit === null || took < limit);
  return words.replace("{n}", (took / unit).toFixed(took / unit < 10 ? 1 : 0));
}

function draw(state) {
  if (state.signupId !== page.signupId || state.version <= version) return;
  version = state.version;
  isComplete = state.complete;
  if (version > 0) notice("form", "");
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
    // The browser blocks storage for this site. The lights don't need it.
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

// Joins texts of the same task: otherwise a second text would replace the first before a screen reader reads it.
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

function notice(source, text) {
  if (notices[source] === text) return; // announced already
  notices[source] = text;
  const place = document.getElementById("notice");
  place.textContent = Object.values(notices).filter(Boolean).join(" ");
  place.hidden = !place.textContent;
  announce(text);
}

// --- the channel ---

function connect() {
  disconnect();
  channel = follow(page, { take, tell });
}

function disconnect() {
  channel?.close();
  channel = null;
  seen.connected = false;
  notice("channel", "");
}

function tell(name) {
  seen.connected = Boolean(channel?.isOpen);
  // The form's answer will contain a fresh ticket.
  if (posting && ["expired", "foreign"].includes(name)) return;
  const isBack = !name && notices.channel;
  notice("channel", name && data.words.notices[name]);
  if (isBack) announce(data.words.notices.back);
}

// Handles messages of the socket, and answers of the status page, which are {state, outcome}.
function take(message) {
  if (!posting || (mayShow && !isRefusal(message.state ?? message))) {
    show(message);
    return;
  }
  held.push(message);
  if (mayShow) setTimeout(() => held.includes(message) && show(message), REFUSAL_WAITS);
}

const isRefusal = (state) => state.services?.auth.status === "FAIL";

function show(message) {
  if (message.services) draw(message);
  else if (message.outcome) {
    if (message.state) draw(message.state);
    else if (message.outcome === "absent" && panel.dataset.outcome === "awaiting") lapse();
    if (["delayed", "stalled"].includes(message.outcome)) slowDown(message.outcome);
  } else if (message.signupId === page.signupId) {
    if (message.expired) lapse();
    else slowDown(message.stalled ? "stalled" : "delayed");
  }
}

function lapse() {
  disconnect();
  say("lapsed");
  announce(document.getElementById("lights-title").textContent);
}

function slowDown(slowness) {
  if (isComplete || [slowness, "stalled", "awaiting"].includes(panel.dataset.outcome)) return;
  say(slowness);
  announce(document.getElementById("lights-title").textContent);
}

// --- the form ---

async function submit(event) {
  if (event.submitter?.name === "language") {
    forgetPasswords();
    return; // the server renders the form again in that language
  }
  event.preventDefault();
  if (posting) return;
  const mine = (posting = new AbortController());
  begin();
  const answer = await answerToForm(mine.signal);
  if (mine !== posting) return; // the channel has led back to the form
  stopWaiting();
  if (answer.formTicket) form.elements.ticket.value = answer.formTicket;
  if (answer.ticket) turnTo(answer);
  if (!answer.isLost && mayShow) unanswered = {};
  if (answer.isLost && (await isKnown())) held.forEach(take);
  else if (answer.errors) backToForm({ ...stillWrong(), ...answer.errors }, "" in answer.errors);
  else [...held, answer.state].forEach(take);
  held = [];
}

// Sends the form. Sends it again if its CSRF token or ticket had to be renewed, because another tab has logged in, or has
// got different cookies at the same time.
async function answerToForm(signal) {
  try {
    const answer = await post(signal);
    if (!answer.csrfToken) return answer;
    for (const input of document.querySelectorAll("[name=csrfmiddlewaretoken]")) input.value = answer.csrfToken;
    form.elements.ticket.value = answer.formTicket;
    turnTo(answer);
    unanswered.signupId = page.signupId;
    const second = await post(signal);
    return second.csrfToken ? { errors: { "": [data.words.notices.stale] } } : second;
  } catch {
    return { errors: { "": [data.words.notices.noAnswer] }, isLost: true };
  }
}

async function post(signal) {
  const response = await fetch(form.action, {
    method: "POST",
    body: new URLSearchParams(new FormData(form)),
    headers: { Accept: "application/json", traceparent: traceparent() },
    signal,
  });
  // Only the view's own answers have this type; the gateway's problem documents have another one.
  const isOurs = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
  return isOurs ? await response.json() : { errors: { "": [wordsOf(response.status)] } };
}

// Whether the sign-up has reached the server although its answer was lost.
async function isKnown() {
  if (!mayShow) return false;
  if (version > 0) return true;
  try {
    const answer = await ask(page.statusPath);
    if (!answer.state) return false;
    take(answer);
    return true;
  } catch {
    return false;
  }
}

// W3C trace context: the sign-up's id is the trace id, and this request a new span.
function traceparent() {
  const step = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0"));
  return `00-${page.signupId.replaceAll("-", "")}-${step.join("")}-01`;
}

// The text for an answer that is not from the form's view but from Django or the gateway.
function wordsOf(status) {
  const { stale, tooLong, broken } = data.words.notices;
  return { 400: tooLong, 403: stale, 413: tooLong }[status] ?? broken;
}

function begin() {
  held = [];
  // The page's sign-up may belong to an earlier content whose answer was lost.
  const content = Array.from(form.querySelectorAll("[data-field] input"), (input) => input.value).join("\n");
  mayShow = unanswered.signupId !== page.signupId || unanswered.content === content;
  if (mayShow) unanswered = { signupId: page.signupId, content };
  deadlines = [
    setTimeout(() => posting && version === 0 && notice("form", data.words.notices.unanswered), UNANSWERED_AFTER),
    setTimeout((mine) => mine.abort(), ANSWERED_WITHIN, posting),
    setTimeout(() => posting || slowDown("delayed"), data.deadline * 1000),
  ];
  form.querySelector("[type=submit]").disabled = true;
  // From here on, a reload shows the lights instead of an empty form with another sign-up.
  history.replaceState(null, "", page.statusPath);
  formPanel.hidden = true;
  panel.hidden = false;
  seen.shown = [];
  version = -1;
  const services = [...list.children].map((item) => [item.dataset.service, { status: "PENDING" }]);
  draw({ signupId: page.signupId, version: 0, complete: false, services: Object.fromEntries(services) });
  say("pending");
  document.getElementById("lights-title").focus();
  for (const button of languages) button.removeAttribute("form"); // the language switch now applies to the lights
  connect();
}

function stopWaiting() {
  posting?.abort();
  posting = null;
  notice("form", "");
  form.querySelector("[type=submit]").disabled = false;
}

// Switches to the sign-up of the answer, which may differ from the one that the page expected.
function turnTo(answer) {
  const isOther = answer.signupId !== page.signupId;
  page = { signupId: answer.signupId, ticket: answer.ticket, socketPath: answer.socketPath, statusPath: answer.statusPath };
  if (answer.errors) return;
  if (isOther) version = 0;
  history.replaceState(null, "", page.statusPath);
  if (isOther || !channel || channel.isOver) connect();
}

function backToForm(errors, keepPassword = false) {
  deadlines.forEach(clearTimeout);
  stopWaiting();
  disconnect();
  for (const button of languages) button.setAttribute("form", form.id);
  history.replaceState(null, "", data.formPath);
  panel.hidden = true;
  formPanel.hidden = false;
  if (!keepPassword) forgetPasswords();
  showErrors(form, errors);
}

function forgetPasswords() {
  for (const input of form.querySelectorAll("[type=password]")) input.value = "";
}

// --- begin ---

function takeOver() {
  window.stop();
  if (!isComplete) connect();
}

window.addEventListener("online", () => {
  channel?.hurry();
});
if (form) {
  form.addEventListener("submit", submit);
  stillWrong = checkWhileTyping(form, { path: data.checkPath, words: data.words.checks });
  const summary = document.getElementById("error-summary");
  if (!summary.hidden) summary.focus();
} else {
  if (data.state) draw(data.state);
  // Until the page has loaded, its automatic reload (for browsers without scripts) stays active; stop it then.
  if (document.readyState === "complete") takeOver();
  else window.addEventListener("load", takeOver);
}
document.getElementById("languages").addEventListener("submit", (event) => {
  // By now, the address may be that of the lights.
  event.target.elements.next.value = location.pathname;
});
seen.ready = true;
