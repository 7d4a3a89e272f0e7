// How the page learns the state of its sign-up: from a WebSocket, and by asking over HTTP while none speaks.

const OPENS_WITHIN = 5000; // ms until the person is told that no socket has opened
const GIVEN_UP_AFTER = 10_000; // ms until a handshake without an answer is given up
const BACKOFF_FIRST = 500; // ms until the first attempt to get a lost socket back; doubles
const BACKOFF_MAX = 20_000;
const ASK_FIRST = 700; // ms without an open socket until the page asks over HTTP
const ASK_MAX = 5000; // ms between two questions while there is no socket
const SILENT_AFTER = 5000; // ms without a message until the page asks although the socket is open
const SILENT_MAX = 30_000;
const ANSWERS_WITHIN = 10_000; // ms that a question may take
const EXPIRED = 4401; // close codes of front/sockets.py
const FOREIGN = 4403;
const NORMAL = 1000;
const STATUS_REFUSALS = { 403: "expired", 404: "foreign" };

// Asks once. Returns {state, outcome}, or {refusal} where this browser may not see the sign-up. Throws without an answer.
export async function ask(path) {
  const signal = AbortSignal.timeout(ANSWERS_WITHIN);
  const response = await fetch(path, { headers: { Accept: "application/json" }, signal });
  const refusal = STATUS_REFUSALS[response.status];
  return refusal ? { refusal } : await response.json();
}

// `take` gets each message of the socket and each answer. `tell` gets the name of the notice that fits now: "" while
// the socket works, "polling", "lost" and "unseen" while the page goes on trying, "expired" and "foreign" at the end.
export function follow(page, { take, tell }) {
  let socket = null;
  let failures = 0;
  let version = 0; // the newest that the socket has told
  let pause = ASK_FIRST;
  let heardAt = 0; // when the socket opened, or spoke last
  let isAsking = false;
  let isDue = false; // no socket has opened in time
  let isMistrusted = false; // the socket before was open and said nothing
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

  // Not by its close event, which may take minutes to come where nobody answers.
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
      answer = await ask(page.statusPath);
    } catch {
      // Told below.
    }
    if (isOver) return;
    if (answer?.refusal) {
      close();
      tell(answer.refusal);
      return;
    }
    // What HTTP knows and an open socket has not told in all this time, it will not tell.
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
    if (answer) take(answer);
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
    // The network is back: without waiting for the next attempt.
    hurry() {
      if (!isOver && !socket) connect();
    },
  };
}
