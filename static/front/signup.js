// The form that stays, and the lights. The server draws the same without this script.
import { ask, follow } from "./channel.js";
import { checkWhileTyping } from "./check.js";
import { showErrors } from "./fields.js";

const GREEN_SHOWN = 1200; // ms that all green is shown before the page goes on
const UNANSWERED_AFTER = 5000; // ms until the person is told that the form's answer has not come
const ANSWERED_WITHIN = 30_000; // ms from the press of the button until the answer counts as lost; the server takes less
const REFUSAL_WAITS = 3000; // ms that a refusal heard elsewhere waits for the form's answer, which says more

const data = JSON.parse(document.getElementById("signup-data").textContent);
const form = document.getElementById("signup-form"); // null on the status page
const formPanel = document.getElementById("form-panel");
const panel = document.getElementById("lights-panel");
const list = document.getElementById("lights");
const languages = document.querySelectorAll("#languages button");

// What has been shown, for tests and for who looks into it; kept for the tab, as the page moves on by itself.
const seen = (window.signupSync = { ready: false, connected: false, shown: [] });

let page = data.page; // {signupId, ticket, socketPath, statusPath}
let version = -1; // of what is shown; 0 is what the page draws before it knows anything
let isComplete = false;
let posting = null; // aborts the form's request, as long as that has no answer
let deadlines = []; // timers that run from the press of the button
let unanswered = {}; // a sign-up that was sent and had no answer: its id, and what the form said
let held = []; // news that waits for the form's answer
let mayShow = true; // whether news are of this content of the form, also before its answer
let stillWrong = () => ({}); // what is known to be wrong with the form beside what its answer says
let unsaid = []; // what is announced when the present work is done
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

function notice(source, text) {
  if (notices[source] === text) return; // said already, with the attempt before
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
  // The form's answer brings a fresh ticket.
  if (posting && ["expired", "foreign"].includes(name)) return;
  const isBack = !name && notices.channel;
  notice("channel", name && data.words.notices[name]);
  if (isBack) announce(data.words.notices.back);
}

// News of the socket, and answers of the status page, which are {state, outcome}.
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
    return; // the server draws the form again, in that language
  }
  event.preventDefault();
  if (posting) return;
  const mine = (posting = new AbortController());
  begin();
  const answer = await answerToForm(mine.signal);
  if (mine !== posting) return; // the lights have led back to the form
  stopWaiting();
  if (answer.formTicket) form.elements.ticket.value = answer.formTicket;
  if (answer.ticket) turnTo(answer);
  if (!answer.isLost && mayShow) unanswered = {};
  if (answer.isLost && (await isKnown())) held.forEach(take);
  else if (answer.errors) backToForm({ ...stillWrong(), ...answer.errors }, "" in answer.errors);
  else [...held, answer.state].forEach(take);
  held = [];
}

// Sends the form, once more where its token or ticket had to be renewed: another tab has logged in, or was given other
// cookies at the same moment.
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
  // The view's own JSON: the gateway's problem documents are of another type.
  const isOurs = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
  return isOurs ? await response.json() : { errors: { "": [wordsOf(response.status)] } };
}

// Whether the sign-up has arrived although its answer has not.
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
  held = [];
  // The page's sign-up may be that of an earlier content, where that one's answer was lost.
  const content = Array.from(form.querySelectorAll("[data-field] input"), (input) => input.value).join("\n");
  mayShow = unanswered.signupId !== page.signupId || unanswered.content === content;
  if (mayShow) unanswered = { signupId: page.signupId, content };
  deadlines = [
    setTimeout(() => posting && version === 0 && notice("form", data.words.notices.unanswered), UNANSWERED_AFTER),
    setTimeout((mine) => mine.abort(), ANSWERED_WITHIN, posting),
    setTimeout(() => posting || slowDown("delayed"), data.deadline * 1000),
  ];
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
  for (const button of languages) button.removeAttribute("form"); // from here on they are about the lights
  connect();
}

function stopWaiting() {
  posting?.abort();
  posting = null;
  notice("form", "");
  form.querySelector("[type=submit]").disabled = false;
}

// The server may have found that this is another sign-up than the page thought.
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
  // The page reloads itself, as without scripts, until one says that it has come.
  if (document.readyState === "complete") takeOver();
  else window.addEventListener("load", takeOver);
}
document.getElementById("languages").addEventListener("submit", (event) => {
  // The address may be that of the lights by now.
  event.target.elements.next.value = location.pathname;
});
seen.ready = true;
