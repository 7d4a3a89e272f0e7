// The page of a long replay goes on by itself; without scripts its button does.
document.addEventListener("DOMContentLoaded", () => document.getElementById("replay-goes-on").requestSubmit());
