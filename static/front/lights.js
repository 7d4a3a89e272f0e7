// Draws the lights of one event transaction and follows them. The server decides what they look like, what is said about
// them and where the page goes next (docs/schemas/page-message.json). Without this script, the page reloads itself.
import { follow } from "./channel.js";

const NEXT_AFTER = 1200; // ms for which the last lights are shown before the page moves on

export const data = JSON.parse(document.getElementById("signup-data").textContent);
export const panel = document.getElementById("lights-panel");
export const title = document.getElementById("lights-title");
const list = document.getElementById("lights");

// The states shown so far, for tests and debugging; also kept in sessionStorage, because the page moves on by itself.
export const seen = (window.signupSync = { ready: false, connected: false, shown: [] });

let page = data.page; // {signupId, ticket, socketPath, statusPath}
let version = -1; // of the lights shown; 0 is the page's own initial state
let stage = 0;
let isOver = false;
let unsaid = []; // texts to be announced at the end of the current task
let channel = null;
const notices = { form: "", channel: "" };

export const shownVersion = () => version;

// Draws a message unless something later is shown already. A process of an earlier version sends no `shown`.
export function draw({ version: newer = version, shown }) {
  if (!shown || (newer <= version && shown.stage <= stage)) return;
  const news = newer > version ? drawLights(newer, shown.lights) : [];
  if (shown.stage >= stage) news.push(...drawOutcome(shown));
  announce(news.join(" "));
  if (!shown.isOver) return;
  isOver = true;
  disconnect();
  if (shown.next) setTimeout(() => location.replace(shown.next), NEXT_AFTER);
}

// Returns what to announce: the lights that have been decided.
function drawLights(newer, lights) {
  const news = [];
  const before = new Map(Array.from(list.children, (light) => [light.dataset.service, light]));
  for (const { service, name, status, word, took } of lights) {
    const light = before.get(service) ?? list.appendChild(list.firstElementChild.cloneNode(true));
    before.delete(service);
    if (light.dataset.status !== status && status !== "PENDING") news.push(`${name}: ${word}.`);
    Object.assign(light.dataset, { service, status });
    for (const [part, text] of Object.entries({ name, word, took })) light.querySelector(`.light-${part}`).textContent = text;
  }
  for (const light of before.values()) light.remove();
  version = newer;
  record(lights);
  return news;
}

function drawOutcome({ outcome, stage: reached, title: heading, text, action }) {
  const isNews = outcome !== panel.dataset.outcome && outcome !== "pending";
  stage = reached;
  panel.dataset.outcome = outcome;
  title.textContent = heading;
  document.getElementById("lights-text").textContent = text;
  for (const link of panel.querySelectorAll("[data-action]")) link.hidden = link.dataset.action !== action;
  return isNews ? [heading] : [];
}

function record(lights) {
  seen.shown.push({ ...Object.fromEntries(lights.map((light) => [light.service, light.status])), version });
  try {
    sessionStorage.setItem("signupSync.shown", JSON.stringify(seen.shown));
  } catch {
    // The browser blocks storage for this site. The lights don't need it.
  }
}

// Begins with all lights pending. Messages about an earlier sign-up of the page no longer count.
export function restart() {
  seen.shown = [];
  version = -1;
  stage = 0;
  isOver = false;
  draw(data.message);
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

export function notice(source, text) {
  if (notices[source] === text) return; // announced already
  notices[source] = text;
  const place = document.getElementById("notice");
  place.textContent = Object.values(notices).filter(Boolean).join(" ");
  place.hidden = !place.textContent;
  announce(text);
}

// Follows a page's lights. `take` gets each message, and `mayTell` says whether to show a notice about the connection.
export function connect(next = page, take = draw, mayTell = () => true) {
  disconnect();
  page = next;
  channel = follow(page, { take, tell: (name) => mayTell(name) && tell(name), outcome: () => panel.dataset.outcome });
}

export function disconnect() {
  channel?.close();
  channel = null;
  seen.connected = false;
  notice("channel", "");
}

export const mustConnect = () => !isOver && (!channel || channel.isOver);

function tell(name) {
  seen.connected = Boolean(channel?.isOpen);
  const isBack = !name && notices.channel;
  notice("channel", name && data.words.notices[name]);
  if (isBack) announce(data.words.notices.back);
}

function takeOver() {
  window.stop();
  if (!isOver) connect();
}

window.addEventListener("online", () => channel?.hurry());
// Where the page begins with the lights, follow them. Below a form, they begin when it is sent.
if (!panel.hidden) {
  draw(data.message);
  // Until the page has loaded, its automatic reload (for browsers without scripts) stays active; stop it then.
  if (document.readyState === "complete") takeOver();
  else window.addEventListener("load", takeOver);
  seen.ready = true;
}
