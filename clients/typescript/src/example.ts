// Signs a person up with the generated client and waits for the lights; then sends an invalid form.
//
//   node dist/example.js http://127.0.0.1:8000 mina.k mina@example.org
//
// Prints the last state of the sign-up and the problem of the invalid form, each as a line of JSON.
import { setTimeout as pause } from "node:timers/promises";

import { type NewUser, type Problem, type SignupState, signupSync } from "./index.js";

const [baseUrl = "", userId = "", email = ""] = process.argv.slice(2);
const client = signupSync(baseUrl);
const form: NewUser = { userId, email, userPw: "correct horse battery", userName: "Mina Kim", role: "ROLE_USER" };

const accepted = await client.POST("/user", { body: form });
// `data` is also typed as the stream of a 200, which nobody gets without asking for it in `Accept`.
if (accepted.data === undefined || typeof accepted.data === "string") throw new Error(accepted.error?.detail);
const ticket = accepted.response.headers.get("Signup-Ticket") ?? "";
let state: SignupState = accepted.data;
while (!state.complete) {
  await pause(200);
  const { data, error } = await client.GET("/user/signups/{signupId}", {
    params: { path: { signupId: state.signupId } },
    headers: { "Signup-Ticket": ticket },
  });
  if (error) throw new Error(error.detail);
  state = data;
}
console.log(JSON.stringify(state));

const refused = await client.POST("/user", { body: { ...form, email: "nowhere" } });
const problem: Problem | undefined = refused.error;
console.log(JSON.stringify({ status: problem?.status, pointers: problem?.errors?.map((each) => each.pointer) }));
