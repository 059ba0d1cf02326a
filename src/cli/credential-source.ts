import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import {
  type CredentialTarget,
  type DockerConfig,
  findInDockerConfig,
  helperOf,
  parseDockerConfig,
} from "../credential/docker-config.ts";
import type { Environment } from "../credential/environment.ts";
import { CredentialError } from "../credential/error.ts";
import { credentialsFromKubernetes } from "../credential/kubernetes-secret.ts";
import type { CredentialMap } from "../credential/provider.ts";
import { errnoOf } from "../std/error.ts";
import { PrivateFileError, readPrivateFile } from "../std/private-file.ts";
import { CliError } from "./context.ts";

/** docker-credential-oci-node, as configurations name it. */
const ownHelper = "oci-node";

/**
 * Takes a credential from where another program keeps it: what `--creds-from` names.
 *
 * @param kept it is to become a secret: then it must not come from this program's own helper
 * @throws CredentialError, CliError
 */
export async function credentialsFrom(
  source: string,
  target: CredentialTarget,
  env: Environment,
  kept = false,
): Promise<CredentialMap> {
  const [program, file] = splitSource(source);
  if (program === "kubernetes" && file !== undefined) {
    return await credentialsFromKubernetes(target, await readText(file, "--creds-from kubernetes"));
  }
  if (program === "docker") return await fromDocker(target, file, env, kept);
  if (program === "podman") return await fromPodman(target, file, env, kept);
  throw new CliError("usage", `--creds-from does not know ${JSON.stringify(source.slice(0, 60))}`, {
    next: "Write docker, docker:FILE, podman, podman:FILE or kubernetes:FILE; - as FILE is standard input.",
  });
}

/** `docker:FILE` in its two parts. */
export function splitSource(source: string): readonly [program: string, file: string | undefined] {
  const colon = source.indexOf(":");
  return colon < 0 ? [source, undefined] : [source.slice(0, colon), source.slice(colon + 1) || undefined];
}

async function fromDocker(
  target: CredentialTarget,
  file: string | undefined,
  env: Environment,
  kept: boolean,
): Promise<CredentialMap> {
  const path = file ?? join(env["DOCKER_CONFIG"] || join(homeOf(env), ".docker"), "config.json");
  const owner = file ?? "Docker's config";
  const config = parseDockerConfig(await readText(path, "--creds-from docker"), owner);
  if (kept) assertNotOurs(target, config, owner);
  const found = await untilInterrupted((signal) =>
    findInDockerConfig(target, config, { owner, namespaces: false, helpers: { env, signal } }),
  );
  return found ?? nothing(target, [config], owner, "docker");
}

/** As containers-auth.json(5) has it: the first file that has a credential. */
async function fromPodman(
  target: CredentialTarget,
  file: string | undefined,
  env: Environment,
  kept: boolean,
): Promise<CredentialMap> {
  const given = file ?? env["REGISTRY_AUTH_FILE"];
  const owner = given || "Podman's auth.json";
  const configs = given
    ? [parseDockerConfig(await readText(given, "--creds-from podman"), owner)]
    : podmanPaths(env).flatMap(({ path, legacy }) => {
        const text = readIfThere(path);
        return text === undefined ? [] : [parseDockerConfig(text, path, legacy)];
      });
  for (const config of configs) {
    if (kept) assertNotOurs(target, config, owner);
    const found = await untilInterrupted((signal) =>
      findInDockerConfig(target, config, { owner, namespaces: true, helpers: { env, signal } }),
    );
    if (found !== undefined) return found;
  }
  return nothing(target, configs, owner, "podman");
}

/** A helper has a session of its own, which Ctrl-C does not reach: it is ended here. */
async function untilInterrupted<T>(find: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort(new CliError("failed", "interrupted: no credential was read"));
  process.once("SIGINT", interrupt);
  process.once("SIGTERM", interrupt);
  try {
    return await find(interrupted.signal);
  } finally {
    process.off("SIGINT", interrupt);
    process.off("SIGTERM", interrupt);
  }
}

/** Our helper gives out what the workspace has already, or a token that ends: neither is to become a secret beside it. */
function assertNotOurs({ registry }: CredentialTarget, config: DockerConfig, owner: string): void {
  if (helperOf(registry, config) !== ownHelper) return;
  throw new CliError("failed", `${owner} leads back to oci-node's own credential for ${registry}`, {
    next: "Leave --creds-from away and name the secret: --secret NAME (see `oci-node secret ls`).",
  });
}

function podmanPaths(env: Environment): readonly { readonly path: string; readonly legacy?: boolean }[] {
  const home = homeOf(env);
  const runtime = env["XDG_RUNTIME_DIR"] || join("/run/containers", String(process.getuid?.() ?? 0));
  const inRuntime = env["XDG_RUNTIME_DIR"]
    ? join(runtime, "containers/auth.json")
    : join(runtime, "auth.json");
  return [
    { path: inRuntime },
    { path: join(env["XDG_CONFIG_HOME"] || join(home, ".config"), "containers/auth.json") },
    { path: join(env["DOCKER_CONFIG"] || join(home, ".docker"), "config.json") },
    { path: join(home, ".dockercfg"), legacy: true },
  ];
}

function homeOf(env: Environment): string {
  return env["HOME"] || homedir();
}

function nothing(
  { registry }: CredentialTarget,
  configs: readonly DockerConfig[],
  owner: string,
  program: string,
): never {
  const helpers = configs.flatMap((config) => helperOf(registry, config) ?? []);
  const asked = helpers.map((name) => `, and docker-credential-${name} has none either`).join("");
  throw new CredentialError("no_credentials", `${owner} has no credential for ${registry}${asked}`, {
    next: `Run \`${program} login ${registry}\`, or pass USERNAME and PASSWORD with --creds.`,
  });
}

/** The text of a file that a flag names; `-` is standard input. @param own the file was made for us: others must not read it */
export async function readText(path: string, flag: string, own = false): Promise<string> {
  if (path === "-") return await Bun.stdin.text();
  try {
    return own ? readPrivateFile(path, { holds: "credentials" }) : readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof PrivateFileError) throw error;
    throw new CliError("failed", `${flag}: ${path} cannot be read (${errnoOf(error) ?? "failed"})`, {
      next: "Check the path and its permissions.",
    });
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    throw new CliError(
      "failed",
      `--creds-from podman: ${path} cannot be read (${errnoOf(error) ?? "failed"})`,
      {
        next: "Check its permissions, or name another file: --creds-from podman:FILE.",
      },
    );
  }
}
