import type { RegistryAuthorization } from "../credential/provider.ts";
import type { Challenge } from "./challenge.ts";
import type { ResolvedPolicy } from "./policy.ts";
import type { Subject } from "./problem.ts";
import { checkRealm } from "./realm.ts";
import type { TokenRequest } from "./token.ts";

/** How a registry wants to be asked, as its challenge said. */
export type Scheme =
  | { readonly kind: "unknown" }
  | { readonly kind: "basic" }
  | { readonly kind: "bearer"; readonly request: TokenRequest };

const pullScope = /^repository:[a-z0-9._/-]{1,255}:pull$/;
/** A word that names no action, and without which some services give no token (Amazon ECR Public: `aws`). */
const bareScope = /^[a-z0-9._-]{1,64}$/;
const scopesMax = 3;

/**
 * The scheme to answer challenges with: tokens where there is a service that may have the credential, else basic where the
 * credential is one. `undefined` when there is neither.
 *
 * @throws RegistryError `egress_refused` when only a service that must not have the credential is named
 */
export function chooseScheme(
  challenges: readonly Challenge[],
  authorization: RegistryAuthorization,
  subject: Subject,
  policy: ResolvedPolicy,
): Scheme | undefined {
  const basic =
    authorization.kind === "basic" && challenges.some((challenge) => challenge.scheme === "basic");
  const bearer = challenges.find(
    (challenge) => challenge.scheme === "bearer" && challenge.parameters.has("realm"),
  );
  if (bearer !== undefined && authorization.kind !== "bearer") {
    try {
      return { kind: "bearer", request: tokenRequest(bearer, authorization, subject, policy) };
    } catch (error) {
      if (!basic) throw error;
    }
  }
  return basic ? { kind: "basic" } : undefined;
}

function tokenRequest(
  challenge: Challenge,
  authorization: RegistryAuthorization,
  { where }: Subject,
  policy: ResolvedPolicy,
): TokenRequest {
  const carriesCredential = authorization.kind !== "anonymous";
  const realm = checkRealm(challenge.parameters.get("realm") ?? "", where, policy, carriesCredential);
  const needed = where.repository === "" ? [] : [`repository:${where.repository}:pull`];
  // What was challenged comes first: some token services read one scope only. More than pulling is never asked for.
  const challenged = (challenge.parameters.get("scope") ?? "")
    .split(" ")
    .filter((scope) => pullScope.test(scope) || bareScope.test(scope));
  const scopes = [...new Set([...challenged.slice(0, scopesMax), ...needed])];
  return { realm, service: challenge.parameters.get("service"), scopes };
}
