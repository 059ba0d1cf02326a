import { readFile, stat } from "node:fs/promises";
import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import type { AwsKeys } from "./issuer.ts";
import {
  askForJson,
  type IssuerAnswer,
  type IssuerCall,
  type IssuerQuestion,
  isToken,
  wordOf,
} from "./issuer-answer.ts";

const instanceService = "EC2's metadata service";
const instanceUrl = "http://169.254.169.254/latest";
const containerService = "the container's credential service";
/** Of ECS tasks, of EKS pods by both protocols ("Container credential provider", AWS SDKs and Tools Reference Guide). */
const containerHosts: ReadonlySet<string> = new Set([
  "169.254.170.2",
  "169.254.170.23",
  "[fd00:ec2::23]",
  "localhost",
  "[::1]",
]);
/** They answer from the machine itself, or are not there. */
const timeoutMs = 5_000;
const tokenFileSizeBytesMax = 64 * 1024;

/**
 * The keys of the instance's role by IMDSv2: a token that only who may send a PUT from the machine gets, then the role's
 * name, then its keys. Version 1 is never asked: what answers to it answers to requests that were smuggled, too ("Use the
 * Instance Metadata Service", Amazon EC2 User Guide).
 *
 * @throws CredentialError `provider_unreachable`, `provider_failed`
 */
export async function instanceKeys(call: IssuerCall): Promise<AwsKeys> {
  const token = await instanceToken(call);
  const headers = { "X-aws-ec2-metadata-token": token.expose() };
  const list = `${instanceUrl}/meta-data/iam/security-credentials/`;
  const named = await ask(call, { who: instanceService, url: list, headers });
  if (named.status === 404) {
    throw new CredentialError("provider_failed", "this instance has no role (404)", {
      next: "Attach an instance profile to the instance, or give a credential.",
    });
  }
  const role = named.text.trim();
  if (named.status !== 200 || !/^[\w+=,.@-]{1,64}$/.test(role)) throw strange(instanceService, named.status);
  const answer = await ask(call, { who: instanceService, url: `${list}${role}`, headers });
  const said = answer.json?.["Code"];
  if (answer.status === 200 && said !== undefined && said !== "Success") {
    throw new CredentialError(
      "provider_failed",
      `EC2 has no keys of the instance's role ${role} (${wordOf(said) ?? "failed"})`,
      { next: "Check that the role exists and that EC2 may assume it." },
    );
  }
  return readKeys(instanceService, answer);
}

async function instanceToken(call: IssuerCall): Promise<Redacted<string>> {
  const answer = await ask(call, {
    who: instanceService,
    url: `${instanceUrl}/api/token`,
    method: "PUT",
    headers: { "X-aws-ec2-metadata-token-ttl-seconds": "60" },
  }).catch((error: unknown) => {
    throw withHopLimit(error);
  });
  if (answer.status === 200 && isToken(answer.text.trim())) return new Redacted(answer.text.trim());
  if (answer.status === 403) {
    throw new CredentialError("provider_failed", "the instance's metadata service is switched off (403)", {
      next: "Enable it with IMDSv2 in the instance's metadata options, or give a credential.",
    });
  }
  throw new CredentialError(
    "provider_failed",
    `${instanceService} does not speak IMDSv2 (${answer.status})`,
    {
      next: "Check what answers at 169.254.169.254; version 1 is not used here.",
    },
  );
}

/** Where a container's network counts as a hop more, the answer to the PUT ends on its way. */
function withHopLimit(error: unknown): unknown {
  if (!(error instanceof CredentialError) || error.code !== "provider_unreachable") return error;
  return new CredentialError(error.code, error.message, {
    next: "Check that this machine is an EC2 instance with its metadata service enabled; inside a container the instance's metadata hop limit has to be 2.",
  });
}

/**
 * Keys of an ECS task or of an EKS pod.
 *
 * @param url what ECS or EKS put into the environment; checked by {@link parseContainerUrl}
 * @param tokenFile what is in it goes along; read each time, since it is written anew
 * @throws CredentialError `provider_unreachable`, `provider_failed`
 */
export async function containerKeys(
  call: IssuerCall,
  url: URL,
  tokenFile: string | undefined,
): Promise<AwsKeys> {
  const token = tokenFile === undefined ? undefined : await readTokenFile(tokenFile, "container_token_file");
  const answer = await ask(call, {
    who: containerService,
    url: url.href,
    ...(token === undefined ? {} : { headers: { Authorization: token.expose() } }),
  });
  if (answer.status >= 400) {
    throw new CredentialError(
      "provider_failed",
      `${containerService} gives no keys (${wordOf(answer.json?.["code"] ?? answer.json?.["Code"]) ?? answer.status})`,
      {
        next: "Check that the task has a task role, or the pod's service account an association, and that container_token_file is the pod's.",
      },
    );
  }
  return readKeys(containerService, answer);
}

/** @throws CredentialError `bad_value`: only the machine itself is asked, for the token goes along */
export function parseContainerUrl(text: string): URL {
  const url = URL.parse(text);
  const known = url !== null && (containerHosts.has(url.hostname) || /^127(\.\d+){3}$/.test(url.hostname));
  if (known && url.protocol === "http:" && `${url.username}${url.password}${url.hash}` === "") return url;
  throw new CredentialError(
    "bad_value",
    "container_credentials_uri is not the address of a container's credential service",
    {
      next: "Set it to AWS_CONTAINER_CREDENTIALS_FULL_URI of the container, or to http://169.254.170.2 with AWS_CONTAINER_CREDENTIALS_RELATIVE_URI behind it.",
    },
  );
}

/** @param setting names the file in errors */
export async function readTokenFile(path: string, setting: string): Promise<Redacted<string>> {
  const next = `Check ${setting} in the node's configuration, and that the token is put there.`;
  try {
    const { size } = await stat(path);
    const text = size <= tokenFileSizeBytesMax ? (await readFile(path, "utf8")).trim() : "";
    if (isToken(text)) return new Redacted(text);
  } catch (cause) {
    throw new CredentialError("provider_failed", `the token file ${path} cannot be read`, { cause, next });
  }
  throw new CredentialError("provider_failed", `the file ${path} holds no token`, { next });
}

function ask(call: IssuerCall, question: IssuerQuestion): Promise<IssuerAnswer> {
  return askForJson(call, { timeoutMs, ...question });
}

/** Both services answer with the same four. */
function readKeys(who: string, { status, json }: IssuerAnswer): AwsKeys {
  const { AccessKeyId: id, SecretAccessKey: secret, Token: token, Expiration: end } = json ?? {};
  const expiresAt = new Date(typeof end === "string" ? end : Number.NaN);
  const whole = typeof id === "string" && /^\w{16,128}$/.test(id) && isToken(secret) && isToken(token);
  if (status !== 200 || !whole || Number.isNaN(expiresAt.getTime())) throw strange(who, status);
  return {
    accessKeyId: id,
    secretAccessKey: new Redacted(secret),
    sessionToken: new Redacted(token),
    expiresAt,
  };
}

function strange(who: string, status: number): CredentialError {
  return new CredentialError("provider_failed", `${who} answers otherwise than AWS does (${status})`, {
    next: `Check what answers in place of ${who}.`,
  });
}
