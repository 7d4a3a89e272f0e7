// Receives the state of the page's sign-up over a WebSocket, and polls over HTTP while the socket is closed or silent.

const OPENS_WITHIN = 5000; // ms until the user is told that no socket has opened
const GIVEN_UP_AFTER = 10_000; // ms until an unanswered handshake is abandoned
const BACKOFF_FIRST = 500; // ms until the first attempt to reconnect; doubles
const BACKOFF_MAX = 20_000;
const ASK_FIRST = 700; // ms without an open socket until the page polls
const ASK_MAX = 5000; // maximum ms between two polls without a socket
const SILENT_AFTER = 5000; // ms without a message until the page polls despite an open socket
const SILENT_MAX = 30_000;
const ANSWERS_WITHIN = 10_000; // timeout in ms for one poll
const EXPIRED = 4401; // close codes of signup_sync/front/sockets.py
const FOREIGN = 4403;
const NORMAL = 1000;
const STATUS_REFUSALS = { 403: "expired", 404: "foreign" };

// Polls once. Returns {state, outcome}, or {refusal} if this browser may not see the sign-up. Throws if there is no answer.
// The server is told the outcome that the page shows.
export async function ask(path, shown) {
  const signal = AbortSignal.timeout(ANSWERS_WITHIN);
  const response = await fetch(`${path}?${new URLSearchParams({ shown })}`, { headers: { Accept: "application/json" }, signal });
  const refusal = STATUS_REFUSALS[response.status];
  return refusal ? { refusal } : await response.json();
}

// Calls `take` with each message, of the socket or in an answer to a poll, and `tell` with the name of the current notice:
// "" while the socket works; "polling", "lost" or "unseen" while the page keeps trying; finally "expired" or "foreign".
// `outcome` returns the outcome shown.
export function follow(page, { take, tell, outcome }) {
  let socket = null;
  let failures = 0;
  let version = 0; // the latest from the socket
  let pause = ASK_FIRST;
  let heardAt = 0; // when the socket opened or last sent a message
  let isAsking = false;
  let isDue = false; // no socket has opened in time
  let isMistrusted = false; // the previous socket was open but silent
  let isOver = false;
  const timers = {};

  const isOpen = () => socket?.readyState === WebSocket.OPEN;
  const isGood = () => isOpen() && !isMistrusted;

  function later(name, work, ms) {
    clearTimeout(timers[name]);
    timers[name] = setTimeout(work, ms);
  }

  function connect() {
    clearTimeout(timers.retry);
    const address = new URL(page.socketPath, location.href);
    address.searchParams.set("language", document.documentElement.lang);
    address.protocol = address.protocol.replace("http", "ws");
    let mine;
    try {
      mine = socket = new WebSocket(address);
    } catch {
      lose(0); // the browser or a policy forbids sockets
      return;
    }
    later("due", missItsTime, OPENS_WITHIN);
    later("giveUp", () => mine === socket && drop(), GIVEN_UP_AFTER);
    mine.addEventListener("open", () => {
      if (mine !== socket) return;
      clearTimeout(timers.due);
      clearTimeout(timers.giveUp);
      heardAt = performance.now();
      if (isMistrusted) return;
      isDue = false;
      tell("");
      askLater(SILENT_AFTER);
    });
    mine.addEventListener("message", (event) => {
      if (mine !== socket) return;
      const message = JSON.parse(event.data);
      failures = 0;
      isDue = isMistrusted = false;
      heardAt = performance.now();
      version = message.version ?? version;
      tell("");
      askLater(SILENT_AFTER);
      take(message);
    });
    mine.addEventListener("close", (event) => mine === socket && lose(event.code));
  }

  function missItsTime() {
    isDue = true;
    if (!isAsking) question();
  }

  // Doesn't wait for the close event, which may take minutes if the server is unreachable.
  function drop() {
    const old = socket;
    lose(0);
    old.close();
  }

  function lose(code) {
    socket = null;
    clearTimeout(timers.due);
    clearTimeout(timers.giveUp);
    if (code === EXPIRED || code === FOREIGN) {
      close();
      tell(code === EXPIRED ? "expired" : "foreign");
      return;
    }
    isDue = true;
    const wait = Math.min(BACKOFF_FIRST * 2 ** failures++, BACKOFF_MAX);
    later("retry", connect, wait * (0.5 + Math.random() / 2));
    pause = ASK_FIRST;
    if (!isAsking) question();
  }

  function askLater(ms) {
    pause = ms;
    later("ask", question, ms);
  }

  async function question() {
    isAsking = true;
    clearTimeout(timers.ask);
    let answer = null;
    try {
      answer = await ask(page.statusPath, outcome());
    } catch {
      // Reported below.
    }
    if (isOver) return;
    if (answer?.refusal) {
      close();
      tell(answer.refusal);
      return;
    }
    // If HTTP has a newer version than a socket that has been open and silent for long, that socket is broken.
    const isMute = isOpen() && performance.now() - heardAt > SILENT_AFTER / 2;
    if (isMute && answer?.state?.version > version) {
      isMistrusted = true;
      drop();
    }
    isAsking = false;
    if (!answer) tell("lost");
    else if (answer.outcome === "unknown") tell("unseen");
    else if (isGood()) tell("");
    else if (isDue) tell("polling");
    if (answer?.state) take(answer.state);
    if (!isOver) askLater(Math.min(pause * 1.5, isGood() ? SILENT_MAX : ASK_MAX));
  }

  function close() {
    isOver = true;
    for (const timer of Object.values(timers)) clearTimeout(timer);
    const old = socket;
    socket = null;
    old?.close(NORMAL);
  }

  connect();
  askLater(ASK_FIRST);
  return {
    close,
    get isOpen() {
      return isGood();
    },
    get isOver() {
      return isOver;
    },
    // The network is back: reconnect without waiting for the next attempt.
    hurry() {
      if (!isOver && !socket) connect();
    },
  };
}
