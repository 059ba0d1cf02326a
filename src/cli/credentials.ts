import { resolve } from "node:path";
import type { CredentialTarget } from "../credential/docker-config.ts";
import { helperEnvironment } from "../credential/docker-helper.ts";
import { type Environment, parseCredentialsFile, readCallerCredentials } from "../credential/environment.ts";
import { identityCredential } from "../credential/identity.ts";
import type { CredentialMap } from "../credential/provider.ts";
import { describeShortLived } from "../credential/short-lived.ts";
import { CliError } from "./context.ts";
import { credentialsFrom, readText, splitSource } from "./credential-source.ts";
import { note } from "./output.ts";

/** The ways to hand credentials over; at most one of the first three may be used. Values are never arguments. */
export interface CredentialFlags {
  readonly creds?: string | undefined;
  readonly credsFile?: string | undefined;
  readonly credsFrom?: string | undefined;
  /** Only of commands that have a node behind them: {@link identityFlag}. */
  readonly identity?: string | undefined;
  readonly json?: boolean | undefined;
}

export const credentialFlags = {
  creds: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "Variables of the environment with the credential, by their names: USERNAME,PASSWORD",
    placeholder: "KEY,KEY",
  },
  credsFile: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "File with KEY=value lines (- for standard input)",
    placeholder: "FILE",
  },
  credsFrom: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief:
      "What another program keeps: docker[:FILE], podman[:FILE] or kubernetes:FILE (- is standard input)",
    placeholder: "SOURCE",
  },
} as const;

export const identityFlag = {
  identity: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "What the node itself is at a cloud, where the operator allowed it: see `oci-node identity`",
    placeholder: "NAME",
  },
} as const;

export interface ReadOptions {
  /** They are to be kept as a secret, and used again later. */
  readonly kept?: boolean;
  readonly env?: Environment;
}

/** Reads the credentials that the flags name; `undefined` when none does. */
export async function readCredentials(
  flags: CredentialFlags,
  target: CredentialTarget,
  { kept = false, env = process.env }: ReadOptions = {},
): Promise<CredentialMap | undefined> {
  const ways = [flags.creds, flags.credsFile, flags.credsFrom].filter((flag) => flag !== undefined);
  if (ways.length === 0 && flags.identity === undefined) return undefined;
  if (ways.length > 1) {
    throw new CliError("usage", "only one of --creds, --creds-file and --creds-from can be given");
  }
  const read = ways.length === 0 ? {} : await readGiven(flags, target, { kept, env });
  const credentials = withIdentity(read, flags.identity, target.registry);
  const ends = kept ? describeShortLived(target.registry, credentials) : undefined;
  if (ends !== undefined && flags.json !== true) {
    note(`note: this is ${ends}; what runs after that needs the keys that such tokens are made with`);
  }
  return credentials;
}

/** An identity stands alone, or beside a role of AWS that it is to assume. */
function withIdentity(read: CredentialMap, identity: string | undefined, registry: string): CredentialMap {
  if (identity === undefined) return read;
  if (Object.keys(read).length > 0 && read["AWS_ROLE_ARN"] === undefined) {
    throw new CliError("usage", "--identity is given beside credentials that it does not go with", {
      next: "Give it alone, or with the role that it is to assume: --creds AWS_ROLE_ARN --identity NAME.",
    });
  }
  return { ...read, ...identityCredential(registry, identity).credentials };
}

async function readGiven(
  { creds, credsFile, credsFrom }: CredentialFlags,
  target: CredentialTarget,
  { kept, env }: Required<ReadOptions>,
): Promise<CredentialMap> {
  if (credsFrom !== undefined) return await credentialsFrom(credsFrom, target, env, kept);
  if (credsFile !== undefined) return parseCredentialsFile(await readText(credsFile, "--creds-file", true));
  const keys = (creds ?? "")
    .split(",")
    .map((key) => key.trim())
    .filter((key) => key !== "");
  if (keys.length === 0)
    throw new CliError("usage", "--creds names no variable", { next: "Write --creds KEY,KEY." });
  return await readCallerCredentials(env, keys);
}

/** Where credentials can be read again, in a form that another process can be told. */
export interface RereadableSource {
  readonly flags: Pick<CredentialFlags, "credsFile" | "credsFrom">;
  /** What it needs of the caller's environment. */
  readonly env: Readonly<Record<string, string>>;
}

/** The source of the credentials that the flags name; `undefined` where it is gone once it was read. */
export function rereadableSource(
  { credsFile, credsFrom }: CredentialFlags,
  env: Environment = process.env,
): RereadableSource | undefined {
  const [program, file] = credsFrom === undefined ? [undefined, credsFile] : splitSource(credsFrom);
  if (file === "-" || (program === undefined && file === undefined)) return undefined;
  const path = file === undefined ? undefined : resolve(file);
  const flags =
    program === undefined ? { credsFile: path } : { credsFrom: [program, path].filter(Boolean).join(":") };
  return { flags, env: helperEnvironment(env) };
}

/** Reads them again. @throws CredentialError, CliError */
export async function readAgain(
  { flags, env }: RereadableSource,
  target: CredentialTarget,
): Promise<CredentialMap> {
  return await readGiven(flags, target, { kept: false, env });
}
