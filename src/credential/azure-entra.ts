import type { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import {
  askForJson,
  type IssuedToken,
  type IssuerAnswer,
  type IssuerCall,
  readToken,
  wordOf,
} from "./issuer-answer.ts";
import { sayClaims } from "./jwt.ts";

/** What a token of Entra is asked for, so that a registry takes it; the same in all clouds. */
export const acrResource = "https://containerregistry.azure.net";
/** To whom an assertion is addressed that Entra is to believe. */
export const assertionAudience = "api://AzureADTokenExchange";

const guid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const guidPattern = new RegExp(`^${guid}$`, "i");
const tenantPattern = new RegExp(
  `^(?:${guid}|(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]{2,63})$`,
  "i",
);

/** An application of Entra, and where it signs in. */
export interface EntraApp {
  readonly clientId: string;
  readonly tenant: string;
  readonly loginHost: string;
}

/** What an application shows: its secret, or a token that somebody signed whom Entra was told to believe. */
export type EntraProof =
  | { readonly kind: "secret"; readonly secret: Redacted<string> }
  | { readonly kind: "assertion"; readonly assertion: Redacted<string> };

/** The application that a user named. @throws CredentialError `bad_value` */
export function entraApp(registry: string, clientId: string, tenant: string): EntraApp {
  if (!guidPattern.test(clientId)) throw notAnId("AZURE_CLIENT_ID", "an application's id");
  if (!tenantPattern.test(tenant)) throw notAnId("AZURE_TENANT_ID", "a tenant's id or domain");
  return { clientId, tenant, loginHost: loginHostOf(registry) };
}

/** Of a managed identity. @throws CredentialError `bad_value` */
export function assertClientId(clientId: string, where: string): void {
  if (!guidPattern.test(clientId)) throw notAnId(where, "an application's id");
}

function notAnId(where: string, what: string): CredentialError {
  return new CredentialError("bad_value", `${where} is not ${what}`, {
    next: `Set ${where} to ${what}, such as 11111111-2222-3333-4444-555555555555.`,
  });
}

/** Sovereign clouds sign in at hosts of their own (Entra, "National clouds"). */
function loginHostOf(registry: string): string {
  if (registry.endsWith(".azurecr.cn")) return "login.chinacloudapi.cn";
  if (registry.endsWith(".azurecr.us")) return "login.microsoftonline.us";
  return "login.microsoftonline.com";
}

/**
 * An application's token for Azure's registries (Entra, "OAuth 2.0 client credentials flow"), of about an hour.
 *
 * @throws CredentialError `expired`, `provider_failed`, `provider_unreachable`
 */
export async function entraToken(app: EntraApp, proof: EntraProof, call: IssuerCall): Promise<IssuedToken> {
  const shown =
    proof.kind === "secret"
      ? { client_secret: proof.secret.expose() }
      : {
          client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
          client_assertion: proof.assertion.expose(),
        };
  const answer = await askForJson(call, {
    who: "Entra",
    url: `https://${app.loginHost}/${app.tenant}/oauth2/v2.0/token`,
    form: {
      grant_type: "client_credentials",
      client_id: app.clientId,
      scope: `${acrResource}/.default`,
      ...shown,
    },
  });
  if (answer.status !== 200) throw refusalOf(app, proof, answer);
  return readToken(call, "Entra", answer);
}

interface Refusal {
  readonly code?: "expired";
  readonly what: string;
  readonly next: string;
}

/** Entra's own numbers (Entra, "Authentication and authorization error codes"); its sentences are not repeated. */
function knownRefusal(number: string | undefined, app: EntraApp, proof: EntraProof): Refusal | undefined {
  const name = `the application ${app.clientId}`;
  switch (number) {
    case "7000222":
      return {
        code: "expired",
        what: `the secret of ${name} has expired`,
        next: "Make a new client secret in Entra and store that.",
      };
    case "7000215":
    case "7000216":
      return {
        what: `Entra refuses the secret of ${name}`,
        next: "Set AZURE_CLIENT_SECRET to the secret's value (not its id), of that application.",
      };
    case "90002":
    case "900023":
    case "50059":
      return {
        what: `Entra has no tenant ${app.tenant}`,
        next: "Check AZURE_TENANT_ID, and the registry's cloud.",
      };
    case "700016":
    case "7000229":
      return {
        what: `${name} is not in the tenant ${app.tenant}`,
        next: "Check AZURE_CLIENT_ID and AZURE_TENANT_ID.",
      };
    case "7000112":
      return { what: `${name} is disabled`, next: "Enable it in Entra, or use another one." };
    case "500011":
      return {
        what: `the tenant ${app.tenant} knows no Azure Container Registry`,
        next: "Check that AZURE_TENANT_ID is the tenant of the registry's subscription.",
      };
    case "53003":
      return {
        what: `a conditional access policy of ${app.tenant} stops ${name}`,
        next: "Let the policy pass this machine's address.",
      };
    default:
      return proof.kind === "assertion" ? assertionRefusal(number, name, proof.assertion) : undefined;
  }
}

function assertionRefusal(
  number: string | undefined,
  name: string,
  assertion: Redacted<string>,
): Refusal | undefined {
  if (number === "700024") {
    return {
      what: `Entra finds the token that was shown for ${name} too old or too new`,
      next: "Set this machine's clock right; a token in a file must be written anew before it ends.",
    };
  }
  if (!/^(?:70021\d?|7002\d{3}|70025|700027|50013|50027|50166)$/.test(number ?? "")) return undefined;
  return {
    what: `Entra does not believe the token that was shown for ${name}: ${sayClaims(assertion)}`,
    next: "Add a federated credential with exactly these to the application; Entra must reach the issuer's keys.",
  };
}

function refusalOf(app: EntraApp, proof: EntraProof, answer: IssuerAnswer): CredentialError {
  const number = numberOf(answer);
  const known = knownRefusal(number, app, proof);
  const said = number === undefined ? (wordOf(answer.json?.["error"]) ?? answer.status) : `AADSTS${number}`;
  const message = known?.what ?? `Entra gives the application ${app.clientId} no token`;
  return new CredentialError(known?.code ?? "provider_failed", `${message} (${said})`, {
    next:
      known?.next ??
      "Look the error up at https://login.microsoftonline.com/error, or in Entra's sign-in log.",
  });
}

function numberOf({ json }: IssuerAnswer): string | undefined {
  const first: unknown = Array.isArray(json?.["error_codes"]) ? json["error_codes"][0] : undefined;
  if (typeof first === "number" && Number.isSafeInteger(first) && first > 0) return String(first);
  const description = json?.["error_description"];
  return typeof description === "string" ? /^AADSTS(\d{4,8})\b/.exec(description)?.[1] : undefined;
}
