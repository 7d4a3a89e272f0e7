// The page with the recovery codes: buttons that copy and print them. Without scripts a person selects the text.

const actions = document.getElementById("codes-actions");
const copy = document.getElementById("copy-codes");

copy.addEventListener("click", async () => {
  const codes = [...document.querySelectorAll("#codes code")].map((code) => code.textContent);
  await navigator.clipboard.writeText(codes.join("\n"));
  copy.textContent = copy.dataset.done;
});
document.getElementById("print-codes").addEventListener("click", () => window.print());
// A page that came over plain HTTP from another host has no clipboard.
copy.hidden = !navigator.clipboard;
actions.hidden = false;
