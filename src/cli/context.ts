import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import type { Transport } from "@connectrpc/connect";
import { transportTo } from "../rpc/transport.ts";
import { removeTorn, writeFileAtomic } from "../std/atomic-file.ts";
import { CodedError, errnoOf, messageOf } from "../std/error.ts";
import { PrivateFileError, readPrivateFile } from "../std/private-file.ts";

export type CliErrorCode = "no_context" | "bad_context" | "usage" | "failed";

/** Something that the command line cannot do as asked; `usage` ends with exit code 2. */
export class CliError extends CodedError<CliErrorCode> {
  override readonly name = "CliError";
}

/** Where the gateway is and what opens it. */
export interface Context {
  readonly url: string;
  /** Of a workspace. */
  readonly token: string;
  /** Of the cluster, where the node is one of this host's own. */
  readonly adminToken?: string | undefined;
  /** PEM file with the authorities that the gateway's certificate may come from, beside the system's. */
  readonly caFile?: string | undefined;
}

/** Whom a command speaks as: somebody of a workspace, or of the cluster where there is a token for that. */
export type SpeakAs = "tenant" | "administrator";

type Environment = Record<string, string | undefined>;

/** `$XDG_CONFIG_HOME/oci-node/context.json`, by default below `~/.config`. */
export function contextPath(env: Environment = process.env): string {
  return join(env["XDG_CONFIG_HOME"] || join(homedir(), ".config"), "oci-node", "context.json");
}

/** Writes the context file; what it says of authorities stays. */
export async function writeContext(context: Context): Promise<string> {
  const path = contextPath();
  const { url, token, adminToken: admin_token } = context;
  const ca_file = context.caFile ?? keptCaFile();
  await removeTorn(path);
  await writeFileAtomic(
    path,
    `${JSON.stringify({ url, token, admin_token, ca_file }, undefined, 2)}\n`,
    0o600,
  );
  return path;
}

function keptCaFile(): string | undefined {
  try {
    return readContextFile(process.env)?.caFile;
  } catch {
    return undefined;
  }
}

/** `OCI_NODE_URL`, `OCI_NODE_TOKEN` and `OCI_NODE_CA_FILE`, each over what the context file says. */
export function readContext(env: Environment = process.env): Context {
  const file = readContextFile(env);
  const url = env["OCI_NODE_URL"] || file?.url;
  const own = env["OCI_NODE_TOKEN"] || undefined;
  const token = own ?? file?.token;
  if (url === undefined || token === undefined) {
    throw new CliError("no_context", `no node is known: ${contextPath(env)} is not there`, {
      next: "Start one with `oci-node dev`, or set OCI_NODE_URL and OCI_NODE_TOKEN.",
    });
  }
  assertSafe(url);
  if (own === undefined && file !== undefined && !isSameNode(url, file.url)) {
    throw new CliError(
      "no_context",
      "OCI_NODE_URL is another node than the one whose tokens this machine has",
      {
        next: `Set OCI_NODE_TOKEN to a token of that node; those in ${contextPath(env)} are not sent to it.`,
      },
    );
  }
  const adminToken = own ?? file?.adminToken;
  return { url, token, adminToken, caFile: env["OCI_NODE_CA_FILE"] || file?.caFile };
}

/** @param as an administrator's commands use that token of the context file, unless OCI_NODE_TOKEN is set */
export function connectTransport(as: SpeakAs = "tenant"): Transport {
  const { url, token, adminToken, caFile } = readContext();
  return transportTo({
    url,
    token: as === "administrator" ? (adminToken ?? token) : token,
    ...(caFile === undefined ? {} : { ca: readAuthorities(caFile) }),
  });
}

/** A token crosses no network in the clear. */
export function assertSafe(url: string): void {
  const parsed = URL.parse(url);
  const { protocol = "", hostname = "" } = parsed ?? {};
  if (protocol === "https:") return;
  if (protocol !== "http:") {
    throw new CliError("usage", "the address of the node is no URL", {
      next: "Set OCI_NODE_URL to one such as https://oci-node.example:7070.",
    });
  }
  if (isThisMachine(hostname)) return;
  throw new CliError("usage", `the token would go to ${parsed?.host} in the clear`, {
    next: "Use https:// in OCI_NODE_URL; plain http:// is for this machine itself (127.0.0.1).",
  });
}

function isThisMachine(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);
}

/** Whether the node in the file can be what a URL means: of one that listens everywhere the host's name does not matter. */
function isSameNode(url: string, inFile: string): boolean {
  const [wanted, known] = [URL.parse(url), URL.parse(inFile)];
  if (wanted === null || known === null || portOf(wanted) !== portOf(known)) return false;
  const everywhere = known.hostname === "0.0.0.0" || known.hostname === "[::]";
  const here = isThisMachine(wanted.hostname) && isThisMachine(known.hostname);
  return everywhere || here || wanted.hostname === known.hostname;
}

function portOf({ port, protocol }: URL): string {
  return port || (protocol === "https:" ? "443" : "80");
}

/** Those of the system stay: the file's are added. */
function readAuthorities(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new CliError("bad_context", `${path}: cannot be read (${errnoOf(error) ?? messageOf(error)})`, {
      next: "Set OCI_NODE_CA_FILE to a PEM file with the certificate of the gateway's authority.",
    });
  }
  if (!text.includes("-----BEGIN CERTIFICATE-----")) {
    throw new CliError("bad_context", `${path} holds no certificate`, {
      next: "Set OCI_NODE_CA_FILE to a PEM file with the certificate of the gateway's authority.",
    });
  }
  return [...rootCertificates, text];
}

function readContextFile(env: Environment): Context | undefined {
  const path = contextPath(env);
  let text: string;
  try {
    text = readPrivateFile(path, { holds: "tokens" });
  } catch (error) {
    if (error instanceof PrivateFileError) throw error;
    return undefined;
  }
  try {
    const said = JSON.parse(text) as Record<string, unknown>;
    const { url, token } = said;
    const optional = (value: unknown) => (typeof value === "string" ? value : undefined);
    if (typeof url === "string" && typeof token === "string") {
      return { url, token, adminToken: optional(said["admin_token"]), caFile: optional(said["ca_file"]) };
    }
  } catch {
    // Told below, with the path.
  }
  throw new CliError("bad_context", `${path} is damaged`, {
    next: "Start the node again: it writes the file anew.",
  });
}
