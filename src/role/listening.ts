import { readFileSync } from "node:fs";
import { type Config, ConfigError } from "../config.ts";
import type { OperatorTls } from "../rpc/server.ts";
import { messageOf } from "../std/error.ts";
import { PrivateFileError, readPrivateFile } from "../std/private-file.ts";

export interface ListenSettings {
  readonly host: string;
  readonly port: number;
  readonly tls?: OperatorTls;
}

/** Where a role of the cluster's listens; what it shows there is the cluster's to make. */
export function listenAddress(
  { listen }: Pick<Config["scheduler"], "listen">,
  defaultPort: number,
): Pick<ListenSettings, "host" | "port"> {
  return listen ?? { host: "127.0.0.1", port: defaultPort };
}

/** Where the gateway listens. Off loopback it must be TLS: tokens and credentials would cross the network in the clear. */
export function listenSettings(
  role: string,
  settings: Config["gateway"],
  defaultPort: number,
): ListenSettings {
  const { host, port } = settings.listen ?? { host: "127.0.0.1", port: defaultPort };
  const { tls_cert_file: certFile, tls_key_file: keyFile } = settings;
  if ((certFile === undefined) !== (keyFile === undefined)) {
    const missing = certFile === undefined ? "tls_cert_file" : "tls_key_file";
    throw new ConfigError("invalid", `${role}: ${missing} is missing`, {
      next: "Give both files, or neither.",
    });
  }
  if (certFile !== undefined && keyFile !== undefined) {
    const holds = "a private key";
    readable(`${role}.tls_key_file`, () => readPrivateFile(keyFile, { holds, groupMayRead: true }));
    readable(`${role}.tls_cert_file`, () => readFileSync(certFile));
    return { host, port, tls: { certFile, keyFile } };
  }
  if (!isLoopback(host)) {
    throw new ConfigError("invalid", `${role}: ${host} is not loopback, and TLS is off`, {
      next: "Set tls_cert_file and tls_key_file, or listen on 127.0.0.1.",
    });
  }
  return { host, port };
}

/** Before a server is made of them: what that says of a file names neither the file nor the setting. */
function readable(setting: string, read: () => unknown): void {
  try {
    read();
  } catch (error) {
    if (error instanceof PrivateFileError)
      throw new ConfigError(error.code, error.message, { next: error.next });
    throw new ConfigError("unreadable", `${setting}: ${messageOf(error)}`, {
      next: "Check the path, and who may read it.",
    });
  }
}

export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}
