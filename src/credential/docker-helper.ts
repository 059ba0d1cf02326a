import { isAbsolute, join } from "node:path";
import { z } from "zod";
import { askProgram, type ProgramAnswer } from "../std/ask-program.ts";
import { SpawnError } from "../std/spawn.ts";
import type { Environment } from "./environment.ts";
import { CredentialError } from "./error.ts";
import type { CredentialMap } from "./provider.ts";
import { credentialMap } from "./value.ts";

/** How a helper says that it has nothing: on standard output, with exit code 1 (docker-credential-helpers, credentials/error.go). */
export const notFoundMessage = "credentials not found in native keychain";
/** The user name beside which the secret is an identity token (docker/cli, native_store.go). */
export const tokenUserName = "<token>";

/**
 * What a helper sees of the caller's environment: where it and its stores are, the way out, and which profile of a cloud
 * is meant. Keys and tokens (`AWS_SECRET_ACCESS_KEY`, …) stay out: those are for `--creds`.
 */
const helperVariables: readonly string[] = [
  ...["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ"],
  ...["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"],
  ...["DOCKER_CONFIG", "REGISTRY_AUTH_FILE"],
  // Key rings: the session bus of libsecret and KWallet, where they ask for their passphrase, `pass` and GnuPG.
  ...["DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"],
  ...["GNUPGHOME", "GPG_TTY", "PASSWORD_STORE_DIR"],
  ...[
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
    "all_proxy",
  ],
  ...["SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE"],
  ...["AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"],
  ...["AWS_SDK_LOAD_CONFIG", "AWS_ECR_DISABLE_CACHE", "AWS_ECR_CACHE_DIR"],
  ...["AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE"],
  ...["CLOUDSDK_CONFIG", "CLOUDSDK_ACTIVE_CONFIG_NAME", "AZURE_CONFIG_DIR"],
];

const helperTimeoutMs = 30_000;
const answerBytesMax = 64 * 1024;
const answerSchema = z.object({ Username: z.string(), Secret: z.string() });

export interface HelperOptions {
  /** The caller's. */
  readonly env: Environment;
  /** For all spellings together; default 30 s. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * What `docker-credential-NAME get` has for a registry, asked under each spelling of its address until one is known.
 * `undefined`: it has none.
 *
 * @throws CredentialError `bad_value` for a name that is none, `provider_failed` for a helper that is absent or fails
 */
export async function askDockerHelper(
  name: string,
  registry: string,
  servers: readonly string[],
  options: HelperOptions,
): Promise<CredentialMap | undefined> {
  const helper = `docker-credential-${checkedName(name)}`;
  const program = findOnPath(helper, options.env["PATH"]);
  if (program === undefined) {
    throw failed(`the credential for ${registry} is kept by ${helper}, which is not on PATH`, {
      next: `Install ${helper}, or pass USERNAME and PASSWORD with --creds.`,
    });
  }
  const endsAt = performance.now() + (options.timeoutMs ?? helperTimeoutMs);
  for (const server of servers) {
    const timeoutMs = Math.max(1, endsAt - performance.now());
    const answer = await ask(program, helper, registry, server, { ...options, timeoutMs });
    const values = valuesOf(answer, helper, registry);
    if (values !== undefined) return credentialMap(values);
  }
  return undefined;
}

function checkedName(name: string): string {
  if (/^[A-Za-z0-9._-]{1,64}$/.test(name)) return name;
  throw new CredentialError("bad_value", "Docker's config names a credential helper by what is no name", {
    next: "Correct credsStore and credHelpers: a helper is named without docker-credential- and without a path.",
  });
}

/** Relative parts of PATH are passed over: what lies in the folder of the moment is not what was installed. */
function findOnPath(program: string, path = ""): string | undefined {
  const folders = path.split(":").filter(isAbsolute);
  return folders
    .map((folder) => Bun.which(join(folder, program), { PATH: folder }))
    .find((found) => found !== null) as string | undefined;
}

async function ask(
  program: string,
  helper: string,
  registry: string,
  server: string,
  { env, timeoutMs = helperTimeoutMs, signal }: HelperOptions,
): Promise<ProgramAnswer> {
  try {
    return await askProgram([program, "get"], {
      env: helperEnvironment(env),
      stdin: server,
      timeoutMs,
      stdoutBytesMax: answerBytesMax,
      signal,
    });
  } catch (error) {
    if (!(error instanceof SpawnError)) throw error;
    const why: Record<string, string> = {
      timeout: "did not answer in time",
      too_large: "answers with more than any credential",
    };
    throw failed(
      `${helper} ${why[error.code] ?? "could not be started"} for ${registry}`,
      tryYourself(helper, server),
    );
  }
}

/** The variables that a helper gets; GOOGLE_APPLICATION_CREDENTIALS only as a path, as it may hold the key itself. */
export function helperEnvironment(env: Environment): Record<string, string> {
  const given = Object.fromEntries(
    helperVariables.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])),
  ) as Record<string, string>;
  const keyFile = env["GOOGLE_APPLICATION_CREDENTIALS"];
  return keyFile?.startsWith("/") ? { ...given, GOOGLE_APPLICATION_CREDENTIALS: keyFile } : given;
}

function valuesOf(
  { exitCode, stdout }: ProgramAnswer,
  helper: string,
  registry: string,
): Record<string, string> | undefined {
  if (exitCode !== 0) {
    if (stdout.trim() === notFoundMessage) return undefined;
    throw failed(`${helper} failed for ${registry} (exit code ${exitCode})`, tryYourself(helper, registry));
  }
  const parsed = answerSchema.safeParse(parseJson(stdout));
  if (!parsed.success) {
    throw failed(
      `${helper} answers for ${registry} with what is no credential`,
      tryYourself(helper, registry),
    );
  }
  const { Username, Secret } = parsed.data;
  if (Username === "" && Secret === "") return undefined;
  return Username === tokenUserName
    ? { REGISTRY_IDENTITY_TOKEN: Secret }
    : { USERNAME: Username, PASSWORD: Secret };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's message could quote a password.
    return undefined;
  }
}

function tryYourself(helper: string, server: string): { next: string } {
  const command = `echo ${server} | ${helper} get`;
  return { next: `Run \`${command}\` yourself: what it says is not repeated here, as it may hold a secret.` };
}

function failed(message: string, options: { next: string }): CredentialError {
  return new CredentialError("provider_failed", message, options);
}
