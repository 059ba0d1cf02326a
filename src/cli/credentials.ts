import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { credentialsFromDockerConfig } from "../credential/docker-config.ts";
import { parseCredentialsFile, readCallerCredentials } from "../credential/environment.ts";
import type { CredentialMap } from "../credential/provider.ts";
import { errnoOf } from "../std/error.ts";
import { CliError } from "./context.ts";

/** The three ways to hand credentials over; at most one may be used. Values are never arguments. */
export interface CredentialFlags {
  readonly creds?: string | undefined;
  readonly credsFile?: string | undefined;
  readonly credsFrom?: "docker" | undefined;
}

export const credentialFlags = {
  creds: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "Names of environment variables that hold the registry credentials: KEY,KEY…",
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
    kind: "enum",
    values: ["docker"],
    optional: true,
    brief: "Take the credentials that `docker login` saved",
  },
} as const;

/** Reads the credentials that the flags name; `undefined` when none does. */
export async function readCredentials(
  flags: CredentialFlags,
  registry: string,
  env: Record<string, string | undefined> = process.env,
): Promise<CredentialMap | undefined> {
  const given = [flags.creds, flags.credsFile, flags.credsFrom].filter((flag) => flag !== undefined);
  if (given.length === 0) return undefined;
  if (given.length > 1) {
    throw new CliError("usage", "only one of --creds, --creds-file and --creds-from can be given");
  }
  if (flags.creds !== undefined) {
    const keys = flags.creds
      .split(",")
      .map((key) => key.trim())
      .filter((key) => key !== "");
    if (keys.length === 0)
      throw new CliError("usage", "--creds names no variable", { next: "Write --creds KEY,KEY." });
    return await readCallerCredentials(env, keys);
  }
  if (flags.credsFile === "-") return parseCredentialsFile(await Bun.stdin.text());
  if (flags.credsFile !== undefined) return parseCredentialsFile(readText(flags.credsFile, "--creds-file"));
  const directory = env["DOCKER_CONFIG"] || join(homedir(), ".docker");
  return credentialsFromDockerConfig(
    registry,
    readText(join(directory, "config.json"), "--creds-from docker"),
  );
}

function readText(path: string, flag: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new CliError("failed", `${flag}: ${path} cannot be read (${errnoOf(error) ?? "failed"})`, {
      next: "Check the path and its permissions.",
    });
  }
}
