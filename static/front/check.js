// Validates the form while it is being filled in. The server has the rules and the texts.
import { showField } from "./fields.js";

const PAUSE = 400; // ms without a keystroke until the server is asked

// Returns a function that returns the errors not yet fixed, by field. When the front refuses the form, auth has not been
// asked, so its errors would otherwise appear only after the next attempt.
export function checkWhileTyping(form, { path, words }) {
  const fields = Object.fromEntries([...form.querySelectorAll("[data-field]")].map((each) => [each.dataset.field, each]));
  const left = new Set(); // fields that were filled in and left; errors are shown only there, not during typing
  const advice = adviceAt(fields.userPw);
  let timer = 0;
  let asking = null;
  let isPressed = false;
  let postponed = [];
  let last = { errors: {}, asked: new URLSearchParams() };

  const inputOf = (name) => fields[name].querySelector("input");

  async function ask() {
    clearTimeout(timer);
    asking?.abort();
    const mine = (asking = new AbortController());
    const sent = new URLSearchParams();
    for (const name of Object.keys(fields)) if (name !== "userPw2" && inputOf(name).value) sent.set(name, inputOf(name).value);
    sent.set("csrfmiddlewaretoken", form.elements.csrfmiddlewaretoken.value);
    try {
      const response = await fetch(path, { method: "POST", body: sent, signal: mine.signal });
      if (!response.ok) return;
      const { errors } = await response.json();
      calmly(() => mine.signal.aborted || show(errors, sent));
    } catch {
      // Aborted, or no connection: the form is checked when it is sent.
    }
  }

  function show(errors, asked) {
    last = { errors, asked };
    for (const name of Object.keys(fields)) {
      const isAsTyped = inputOf(name).value === asked.get(name);
      if (isAsTyped && left.has(name)) showField(fields[name], errors[name] ?? []);
    }
    const password = inputOf("userPw").value;
    if (password !== (asked.get("userPw") ?? "")) return;
    advice.classList.toggle("good", Boolean(password) && !errors.userPw);
    if (!password || (errors.userPw && left.has("userPw"))) advice.textContent = "";
    else advice.textContent = errors.userPw?.join(" ") ?? words.goodPassword;
  }

  function compare() {
    const [one, two] = [inputOf("userPw").value, inputOf("userPw2").value];
    if (left.has("userPw2") && two) showField(fields.userPw2, one === two ? [] : [words.mismatch]);
  }

  // A message moves everything below it. While the user is pressing a button, the button must not move, or the click
  // would be lost.
  function calmly(work) {
    if (isPressed) postponed.push(work);
    else work();
  }
  form.addEventListener("pointerdown", () => (isPressed = true));
  for (const end of ["pointerup", "pointercancel"]) {
    window.addEventListener(end, () => {
      isPressed = false;
      setTimeout(() => {
        for (const work of postponed) work();
        postponed = [];
      });
    });
  }
  // The answer to the whole form is newer than any pending check.
  form.addEventListener("submit", () => {
    clearTimeout(timer);
    asking?.abort();
    // The advice is about a password that will be cleared when the form is shown again.
    advice.textContent = "";
    advice.classList.remove("good");
  });
  form.addEventListener("input", (event) => {
    const name = event.target.name;
    if (!(name in fields)) return;
    // The shown errors are about the value that was sent.
    if (fields[name].classList.contains("has-error")) left.add(name);
    if (name === "userPw2") {
      compare();
      return;
    }
    clearTimeout(timer);
    if (name === "userPw" || left.has(name)) timer = setTimeout(ask, PAUSE);
  });
  form.addEventListener("change", (event) => {
    const name = event.target.name;
    if (!(name in fields) || !event.target.value) return;
    left.add(name);
    calmly(compare);
    if (name !== "userPw2") ask();
  });
  return () => Object.fromEntries(Object.entries(last.errors).filter(([name]) => inputOf(name).value === last.asked.get(name)));
}

function adviceAt(field) {
  const advice = document.createElement("p");
  advice.className = "advice";
  advice.id = "password-advice";
  advice.setAttribute("aria-live", "polite");
  field.append(advice);
  return advice;
}
