// The sign-up form, whose page turns into that of the lights. Without this script, the server renders them separately.
import { ask } from "./channel.js";
import { checkWhileTyping } from "./check.js";
import { showErrors } from "./fields.js";
import { connect as follow, data, disconnect, draw, mustConnect, notice, panel, restart, seen, shownVersion, title } from "./lights.js";

const UNANSWERED_AFTER = 5000; // ms until the user is told that the form has no answer yet
const ANSWERED_WITHIN = 30_000; // ms after which the form's answer counts as lost; the server's timeout is shorter
const REFUSAL_WAITS = 3000; // ms for which a refusal from the channel waits for the form's answer, which has more detail

const form = document.getElementById("signup-form");
const formPanel = document.getElementById("form-panel");
const languages = document.querySelectorAll("#languages button");

let page = data.page; // {signupId, ticket, socketPath, statusPath}
let posting = null; // the AbortController of the form's request while it has no answer
let deadlines = []; // timers that start when the form is sent
let unanswered = {}; // a sign-up that was sent without getting an answer: its id, and the form's content
let held = []; // messages that wait for the form's answer
let mayShow = true; // whether messages before the form's answer are about its current content
let stillWrong = () => ({}); // returns known errors that the form's answer may lack

// --- the channel ---

function connect() {
  follow(page, take, (name) => !(posting && ["expired", "foreign"].includes(name))); // the answer has a fresh ticket
}

// Shows a message, unless it must wait for the form's answer.
function take(message) {
  if (!posting || (mayShow && !isRefusal(message))) {
    show(message);
    return;
  }
  held.push(message);
  if (mayShow) setTimeout(() => held.includes(message) && show(message), REFUSAL_WAITS);
}

const isRefusal = ({ shown }) => Object.keys(shown?.errors ?? {}).length > 0;

function show(message) {
  if (message.signupId !== page.signupId) return;
  if (isRefusal(message)) {
    backToForm(message.shown.errors);
    return;
  }
  if (message.version > 0) notice("form", "");
  draw(message);
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
  if (shownVersion() > 0) return true;
  try {
    const answer = await ask(page.statusPath, panel.dataset.outcome);
    if (!answer.state) return false;
    take(answer.state);
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
    setTimeout(() => posting && shownVersion() === 0 && notice("form", data.words.notices.unanswered), UNANSWERED_AFTER),
    setTimeout((mine) => mine.abort(), ANSWERED_WITHIN, posting),
  ];
  form.querySelector("[type=submit]").disabled = true;
  // From here on, a reload shows the lights instead of an empty form with another sign-up.
  history.replaceState(null, "", page.statusPath);
  formPanel.hidden = true;
  panel.hidden = false;
  restart();
  title.focus();
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
  if (isOther) restart();
  history.replaceState(null, "", page.statusPath);
  if (isOther || mustConnect()) connect();
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

form.addEventListener("submit", submit);
stillWrong = checkWhileTyping(form, { path: data.checkPath, words: data.words.checks });
const summary = document.getElementById("error-summary");
if (!summary.hidden) summary.focus();
document.getElementById("languages").addEventListener("submit", (event) => {
  // By now, the address may be that of the lights.
  event.target.elements.next.value = location.pathname;
});
seen.ready = true;
