// Buttons that copy and print the recovery codes. Without scripts, the user selects the text.

const actions = document.getElementById("codes-actions");
const copy = document.getElementById("copy-codes");

copy.addEventListener("click", async () => {
  const codes = [...document.querySelectorAll("#codes code")].map((code) => code.textContent);
  await navigator.clipboard.writeText(codes.join("\n"));
  copy.textContent = copy.dataset.done;
});
document.getElementById("print-codes").addEventListener("click", () => window.print());
// The clipboard is unavailable on pages served over plain HTTP from another host.
copy.hidden = !navigator.clipboard;
actions.hidden = false;
