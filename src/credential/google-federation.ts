import type { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { googleAccessScope } from "./google-key.ts";
import type { WorkspaceIdentity } from "./issuer.ts";
import {
  askForJson,
  type IssuedToken,
  type IssuerAnswer,
  type IssuerCall,
  readToken,
  wordOf,
} from "./issuer-answer.ts";
import { claimsOf, sayClaims } from "./jwt.ts";
import { subjectToken } from "./workspace-token.ts";

const tokenUrl = "https://sts.googleapis.com/v1/token";
const providerPattern =
  /^(?:(?:https:)?\/\/iam\.googleapis\.com\/)?(projects\/\d{1,19}\/locations\/global\/workloadIdentityPools\/([a-z0-9-]{4,32})\/providers\/[a-z0-9-]{4,32})$/;

/** A provider of a workload identity pool, by which Google believes tokens of ours. */
export interface GooglePoolProvider {
  /** `projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER` */
  readonly name: string;
  /** `projects/NUMBER/locations/global/workloadIdentityPools/POOL` */
  readonly pool: string;
}

/**
 * All that a tenant may say of a federation is its name: which token is sent, and where to, is not his choice.
 *
 * @throws CredentialError `bad_value`
 */
export function parseGooglePoolProvider(text: string): GooglePoolProvider {
  const name = providerPattern.exec(text)?.[1];
  if (name === undefined) {
    throw new CredentialError(
      "bad_value",
      "GCP_WORKLOAD_IDENTITY_PROVIDER is not the name of a workload identity provider",
      {
        next: "Set it to projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER (the number, not the id, of the project).",
      },
    );
  }
  return { name, pool: name.replace(/\/providers\/.*$/, "") };
}

/** A federated token, and who it is of, as the grant of a role names it. */
export interface FederatedToken extends IssuedToken {
  readonly principal: string;
}

/**
 * An access token of Google's for the workspace's own token (RFC 8693; Google, "Security Token Service API").
 *
 * @throws CredentialError `provider_failed`, `provider_unreachable`
 */
export async function googleFederatedToken(
  provider: GooglePoolProvider,
  workspace: WorkspaceIdentity | undefined,
  call: IssuerCall,
): Promise<FederatedToken> {
  const instead = "give GOOGLE_APPLICATION_CREDENTIALS in place of GCP_WORKLOAD_IDENTITY_PROVIDER";
  const subject = await subjectToken(workspace, `https://iam.googleapis.com/${provider.name}`, instead);
  const answer = await askForJson(call, {
    who: "Google",
    url: tokenUrl,
    form: {
      grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
      audience: `//iam.googleapis.com/${provider.name}`,
      scope: googleAccessScope,
      requested_token_type: "urn:ietf:params:oauth:token-type:access_token",
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      subject_token: subject.expose(),
    },
  });
  if (answer.status !== 200) throw refusalOf(provider, subject, answer);
  const sub = claimsOf(subject)?.["sub"];
  return {
    ...readToken(call, "Google", answer),
    principal: `principal://iam.googleapis.com/${provider.pool}/subject/${typeof sub === "string" ? sub : "SUBJECT"}`,
  };
}

function refusalOf(
  provider: GooglePoolProvider,
  subject: Redacted<string>,
  answer: IssuerAnswer,
): CredentialError {
  const word = wordOf(answer.json?.["error"]) ?? String(answer.status);
  if (word === "invalid_target") {
    return new CredentialError(
      "provider_failed",
      `Google has no ${provider.name}, or it is disabled (${word})`,
      {
        next: "Check GCP_WORKLOAD_IDENTITY_PROVIDER and that pool and provider are enabled.",
      },
    );
  }
  const sent = sayClaims(subject);
  if (word === "unauthorized_client") {
    return new CredentialError(
      "provider_failed",
      `the attribute condition of ${provider.name} does not let this workspace in (${sent})`,
      { next: "Let its condition accept that subject." },
    );
  }
  return new CredentialError(
    "provider_failed",
    `${provider.name} refuses the token of this workspace (${word}): it was sent ${sent}`,
    {
      next: "Set the provider's issuer to that one, leave its audiences at the default or allow that one, and map google.subject=assertion.sub; Google must reach the issuer's keys.",
    },
  );
}
