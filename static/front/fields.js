// Shows a form's errors at the fields and in the summary above them, as the server renders them.

const summary = document.getElementById("error-summary");

export function showField(field, texts) {
  const input = field.querySelector("input");
  const place = field.querySelector(".field-error");
  field.classList.toggle("has-error", texts.length > 0);
  place.textContent = texts.join(" ");
  place.hidden = texts.length === 0;
  if (texts.length) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
  const described = [field.querySelector(".hint"), field.querySelector(".advice"), texts.length ? place : null];
  input.setAttribute("aria-describedby", described.filter(Boolean).map((each) => each.id).join(" "));
}

// `errors` maps field names to texts; "" has the texts that belong to no field.
export function showErrors(form, errors) {
  const items = (errors[""] ?? []).map((text) => item(text));
  for (const field of form.querySelectorAll("[data-field]")) {
    const texts = errors[field.dataset.field] ?? [];
    showField(field, texts);
    for (const text of texts) items.push(item(text, field.querySelector("input").id));
  }
  summary.querySelector("ul").replaceChildren(...items);
  summary.hidden = items.length === 0;
  if (items.length) summary.focus();
}

function item(text, target) {
  const element = document.createElement("li");
  if (target) {
    const link = document.createElement("a");
    link.href = `#${target}`;
    link.textContent = text;
    element.append(link);
  } else element.textContent = text;
  return element;
}

summary?.addEventListener("click", (event) => {
  const target = event.target.closest("a")?.hash.slice(1);
  if (!target) return;
  event.preventDefault();
  document.getElementById(target).focus();
});
