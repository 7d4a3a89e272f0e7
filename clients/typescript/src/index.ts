// A client of auth's API: every path, parameter and answer is typed by src/schema.ts, which is generated.
import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

export type NewUser = components["schemas"]["NewUser"];
export type SignupState = components["schemas"]["SignupState"];
export type ChangeState = components["schemas"]["ChangeState"];
export type Problem = components["schemas"]["Problem"];

export const signupSync = (baseUrl: string) => createClient<paths>({ baseUrl });
