import type { AssumeRoleCommandOutput } from "@aws-sdk/client-sts";
import { Redacted } from "../std/redacted.ts";
import { type AwsCall, callLimit, clientSettings } from "./aws-client.ts";
import { type AwsAsked, awsProblem } from "./aws-error.ts";
import { type AwsRole, principalOfCaller } from "./aws-role.ts";
import { CredentialError } from "./error.ts";
import type { AwsKeys } from "./issuer.ts";
import { claimsOf } from "./jwt.ts";

/** A session of a role, as it is asked for. */
export interface RoleSession {
  readonly role: AwsRole;
  readonly name: string;
  /** 900–43 200; when a role goes on to another, AWS allows 3600 at most. */
  readonly durationSeconds: number;
  /** What the session may do at most; absent: whatever the role may. */
  readonly policy?: string;
}

/**
 * `sts:AssumeRole` with the keys of the call. Errors tell what has to be in the role's trust policy.
 *
 * @param externalId that of the workspace; absent for the operator's own roles
 * @param whose the keys' owner in errors and what to do about them when they are wrong
 */
export async function assumeRole(
  session: RoleSession,
  call: AwsCall & { readonly keys: AwsKeys },
  whose: Pick<AwsAsked, "keys" | "renew">,
  externalId?: string,
): Promise<AwsKeys> {
  const { role } = session;
  const { AssumeRoleCommand, STSClient } = await import("@aws-sdk/client-sts");
  const client = new STSClient(clientSettings(call));
  try {
    const command = new AssumeRoleCommand({
      ...sessionInput(session),
      ...(externalId === undefined ? {} : { ExternalId: externalId }),
    });
    return keysOf(await client.send(command, callLimit()), role);
  } catch (error) {
    throw await awsProblem(error, {
      ...askedOf(call, role),
      ...whose,
      denied: async (name) => refusedRole(role, whose.keys, await callerOf(call), externalId, name),
    });
  } finally {
    client.destroy();
  }
}

/** `sts:AssumeRoleWithWebIdentity`: a token of an OpenID Connect issuer in place of keys. */
export async function assumeRoleWithWebIdentity(
  session: RoleSession,
  token: Redacted<string>,
  call: Omit<AwsCall, "keys">,
): Promise<AwsKeys> {
  const { role } = session;
  const { AssumeRoleWithWebIdentityCommand, STSClient } = await import("@aws-sdk/client-sts");
  const client = new STSClient(clientSettings(call));
  try {
    const command = new AssumeRoleWithWebIdentityCommand({
      ...sessionInput(session),
      WebIdentityToken: token.expose(),
    });
    return keysOf(await client.send(command, callLimit()), role);
  } catch (error) {
    const told = webIdentityProblem(error, role, token);
    throw told ?? (await awsProblem(error, askedWithToken(call, role, token)));
  } finally {
    client.destroy();
  }
}

function sessionInput({ role, name, durationSeconds, policy }: RoleSession) {
  return {
    RoleArn: role.arn,
    RoleSessionName: name,
    DurationSeconds: durationSeconds,
    ...(policy === undefined ? {} : { Policy: policy }),
  };
}

function keysOf({ Credentials: keys }: Pick<AssumeRoleCommandOutput, "Credentials">, role: AwsRole): AwsKeys {
  if (!keys?.AccessKeyId || !keys.SecretAccessKey || !keys.SessionToken) {
    throw new CredentialError("provider_failed", `AWS answered without keys for ${role.arn}`, {
      next: "Try again; if it stays so, check what answers in place of AWS STS.",
    });
  }
  return {
    accessKeyId: keys.AccessKeyId,
    secretAccessKey: new Redacted(keys.SecretAccessKey),
    sessionToken: new Redacted(keys.SessionToken),
    ...(keys.Expiration === undefined ? {} : { expiresAt: keys.Expiration }),
  };
}

function askedOf(call: Pick<AwsCall, "endpoint">, role: AwsRole) {
  return { host: new URL(call.endpoint).host, wanted: `session of ${role.arn}` };
}

/** Who the keys are, to AWS: everybody may ask this. For an error, so failing is no matter. */
async function callerOf(call: AwsCall): Promise<string | undefined> {
  const { GetCallerIdentityCommand, STSClient } = await import("@aws-sdk/client-sts");
  const client = new STSClient(clientSettings(call));
  try {
    const { Arn } = await client.send(new GetCallerIdentityCommand({}), callLimit());
    return Arn !== undefined && /^arn:[\w+=,.@:/-]{1,600}$/.test(Arn) ? principalOfCaller(Arn) : undefined;
  } catch {
    return undefined;
  } finally {
    client.destroy();
  }
}

function refusedRole(
  role: AwsRole,
  keys: string,
  caller: string | undefined,
  externalId: string | undefined,
  name: string,
): CredentialError {
  const principal = caller ?? "the keys' user or role";
  const condition =
    externalId === undefined ? "" : ` under the condition StringEquals sts:ExternalId "${externalId}"`;
  return new CredentialError(
    "provider_failed",
    `AWS does not let ${keys} assume ${role.arn}${caller === undefined ? "" : ` as ${caller}`} (${name})`,
    {
      next: `Check that the role exists; in its trust policy allow sts:AssumeRole to ${principal}${condition}; the principal itself needs sts:AssumeRole on the role, too.`,
    },
  );
}

/** What can be wrong with a token, by name: the trust that is missing is between AWS's account and the token's issuer. */
function webIdentityProblem(
  error: unknown,
  role: AwsRole,
  token: Redacted<string>,
): CredentialError | undefined {
  const name = error instanceof Error ? error.name : "";
  const { issuer, subject, audience } = saidIn(token);
  if (name === "InvalidIdentityToken" || name === "InvalidIdentityTokenException") {
    return new CredentialError(
      "provider_failed",
      `account ${role.account} does not know the issuer ${issuer} or not its audience ${audience} (${name})`,
      {
        next: `Make an OIDC provider in IAM with the URL ${issuer} and the audience ${audience}; AWS must reach that URL.`,
      },
    );
  }
  if (name === "IDPCommunicationError" || name === "IDPCommunicationErrorException") {
    return new CredentialError("provider_unreachable", `AWS does not reach the issuer ${issuer} (${name})`, {
      next: `Check that ${issuer}/.well-known/openid-configuration answers from the internet, then try again.`,
    });
  }
  if (name === "ExpiredTokenException" || name === "ExpiredToken") {
    return new CredentialError("expired", `the token of ${subject} for ${role.arn} has expired (${name})`, {
      next: "Check the clock of the machine that made the token, or what should renew its file.",
    });
  }
  return undefined;
}

function askedWithToken(call: Pick<AwsCall, "endpoint">, role: AwsRole, token: Redacted<string>): AwsAsked {
  const { issuer, subject, audience } = saidIn(token);
  return {
    ...askedOf(call, role),
    keys: "the token",
    renew: "Check the issuer of the token.",
    denied: (name) =>
      new CredentialError("provider_failed", `AWS does not let ${subject} assume ${role.arn} (${name})`, {
        next: `Check that the role exists; in its trust policy allow sts:AssumeRoleWithWebIdentity to the OIDC provider ${issuer} for the subject "${subject}" and the audience "${audience}".`,
      }),
  };
}

/** Issuer, subject and audience of the token, for a reader's eyes: nothing is trusted because of them. */
function saidIn(token: Redacted<string>): Record<"issuer" | "subject" | "audience", string> {
  const { iss, sub, aud } = claimsOf(token) ?? {};
  const text = (value: unknown): string =>
    typeof value === "string" && /^[\x21-\x7e]{1,255}$/.test(value) ? value : "(unknown)";
  return { issuer: text(iss), subject: text(sub), audience: text(Array.isArray(aud) ? aud[0] : aud) };
}
