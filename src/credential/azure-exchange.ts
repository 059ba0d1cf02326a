import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { askForJson, type IssuerAnswer, type IssuerCall, isToken, withoutToken } from "./issuer-answer.ts";
import { tokenEndsAtMs } from "./jwt.ts";
import type { RegistryAuthorization } from "./provider.ts";

/** Who comes with a token of Entra: its name in errors, and its tenant where that is known. */
export interface AcrVisitor {
  readonly name: string;
  readonly tenant: string | undefined;
}

/**
 * A registry's own refresh token (about three hours) for a token of Entra; the registry's token service then gives
 * tokens of one repository for it (Azure Container Registry, "Entra integration", `POST /oauth2/exchange`).
 *
 * @throws CredentialError `provider_failed`, `provider_unreachable`
 */
export async function acrRefreshToken(
  registry: string,
  token: Redacted<string>,
  visitor: AcrVisitor,
  call: IssuerCall,
): Promise<RegistryAuthorization> {
  const answer = await askForJson(call, {
    who: "the registry",
    url: `https://${registry}/oauth2/exchange`,
    form: {
      grant_type: "access_token",
      service: registry,
      ...(visitor.tenant === undefined ? {} : { tenant: visitor.tenant }),
      access_token: token.expose(),
    },
  });
  if (answer.status !== 200) throw refusalOf(registry, visitor, answer);
  const refreshToken = answer.json?.["refresh_token"];
  if (!isToken(refreshToken)) throw withoutToken(registry);
  const made = new Redacted(refreshToken);
  const endsAtMs = tokenEndsAtMs(made);
  const authorization = { kind: "refresh", token: made } as const;
  return endsAtMs === undefined ? authorization : { ...authorization, expiresAt: new Date(endsAtMs) };
}

function refusalOf(registry: string, visitor: AcrVisitor, { status }: IssuerAnswer): CredentialError {
  if (status === 404 || status === 405) {
    return new CredentialError("provider_failed", `${registry} exchanges no tokens of Entra (${status})`, {
      next: "Check that this is a registry of Azure's.",
    });
  }
  if (status === 403) {
    return new CredentialError("provider_failed", `${registry} does not let ${visitor.name} in (${status})`, {
      next: "Check the registry's network rules: they may not admit this machine's address.",
    });
  }
  return new CredentialError("provider_failed", `${registry} does not know ${visitor.name} (${status})`, {
    next: "Give it the role AcrPull on the registry, and check that it is of the registry's own tenant.",
  });
}
