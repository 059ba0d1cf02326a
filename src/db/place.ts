import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import type { ConnectionOptions } from "node:tls";
import { errnoOf } from "../std/error.ts";
import { DbError } from "./error.ts";

/** Where a server is, and what it has to show there. */
export interface DatabasePlace {
  /** For the driver: without what it would take for a setting of the server's. */
  readonly url: string;
  /** The Unix socket to connect to. */
  readonly path: string | undefined;
  /** Absent: in the clear, which stays on this machine. */
  readonly tls: ConnectionOptions | undefined;
}

type Mode = "require" | "verify-ca" | "verify-full";

/** The modes that never fall back to the clear; those that may (libpq's `prefer`, its standard) would with any attacker. */
const modes: readonly string[] = ["require", "verify-ca", "verify-full"] satisfies Mode[];

/**
 * Reads a database URL as libpq does (PostgreSQL documentation, 32.1.2): `host` as a folder is a Unix socket; `sslmode`,
 * `sslrootcert`. Off this machine TLS is demanded, 1.2 or later: rows, tokens' hashes and a password go over it.
 *
 * @throws DbError `unavailable`, with what to write in its place
 */
export function databasePlace(text: string): DatabasePlace {
  const url = URL.parse(text);
  if (url === null) {
    throw new DbError("unavailable", "the database URL cannot be read", {
      next: "Give --database-url as postgres://user:password@host:port/name.",
    });
  }
  const taken = (name: string): string | undefined => {
    const value = url.searchParams.get(name) ?? undefined;
    url.searchParams.delete(name);
    return value;
  };
  const [folder, mode, rootCertificate] = [taken("host"), taken("sslmode"), taken("sslrootcert")];
  if (folder?.startsWith("/") === true) {
    return { url: url.href, path: `${folder}/.s.PGSQL.${url.port || "5432"}`, tls: undefined };
  }
  const host = url.hostname.replace(/^\[|\]$/g, "");
  if (mode !== undefined && modes.includes(mode)) {
    return { url: url.href, path: undefined, tls: tlsOf(host, mode as Mode, rootCertificate) };
  }
  if (!isThisMachine(host)) {
    const how = mode === undefined ? "without sslmode" : `with sslmode=${JSON.stringify(mode)}`;
    throw new DbError("unavailable", `the database at ${host} would be spoken to in the clear, ${how}`, {
      next: "Add ?sslmode=verify-full&sslrootcert=/path/to/ca.pem to its URL, or at least ?sslmode=require.",
    });
  }
  return { url: url.href, path: undefined, tls: undefined };
}

function tlsOf(host: string, mode: Mode, rootCertificate: string | undefined): ConnectionOptions {
  const named = isIP(host) === 0 ? { host, servername: host } : { host };
  const ca =
    rootCertificate === undefined || rootCertificate === "system" ? {} : { ca: read(rootCertificate) };
  // As libpq has it: with authorities of one's own `require` looks at them, too.
  const verified = mode !== "require" || "ca" in ca;
  return {
    minVersion: "TLSv1.2",
    ...named,
    ...ca,
    rejectUnauthorized: verified,
    ...(mode === "verify-full" ? {} : { checkServerIdentity: () => undefined }),
  };
}

function read(path: string): string {
  let text = "";
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new DbError(
      "unavailable",
      `database URL: sslrootcert: ${path} cannot be read (${errnoOf(error) ?? "failed"})`,
      {
        next: "Check the path.",
      },
    );
  }
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw new DbError("unavailable", `database URL: sslrootcert: there is no certificate in ${path}`, {
    next: "Name a PEM file with the certificates of authorities (-----BEGIN CERTIFICATE-----).",
  });
}

function isThisMachine(host: string): boolean {
  return host === "" || host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}
