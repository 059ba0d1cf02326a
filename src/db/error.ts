import { CodedError } from "../std/error.ts";

/**
 * `unavailable`: the server is not there or went away, trying again may help. `conflict`: a row with this key exists.
 * `constraint`: another rule of the schema. `serialization`: lost against another transaction, to be repeated.
 */
export type DbErrorCode = "unavailable" | "conflict" | "constraint" | "serialization" | "internal";

/**
 * A failure of the database without what was bound to the statement: Drizzle's errors carry the query and its
 * parameters in their message, the server's carry rows in `detail`. Neither is kept, not even as `cause`.
 */
export class DbError extends CodedError<DbErrorCode> {
  override readonly name = "DbError";
  /** SQLSTATE, where the server answered. PostgreSQL documentation, appendix A. */
  readonly sqlState: string | undefined;
  readonly constraint: string | undefined;

  constructor(
    code: DbErrorCode,
    message: string,
    about: { sqlState?: string; constraint?: string; next?: string } = {},
  ) {
    super(code, message, { next: about.next });
    this.sqlState = about.sqlState;
    this.constraint = about.constraint;
  }
}

/** What was thrown inside database work: errors with a code of ours as they are, all others as a stripped {@link DbError}. */
export function toDbError(thrown: unknown): Error {
  if (thrown instanceof CodedError) return thrown;
  if (thrown instanceof DOMException && thrown.name === "AbortError") return thrown;
  // A mistake in our own code; those that come from a statement are wrapped by Drizzle, with its parameters.
  if (thrown instanceof TypeError || thrown instanceof ReferenceError || thrown instanceof RangeError)
    return thrown;
  const source = innermost(thrown);
  const code = typeof source.code === "string" ? source.code : "";
  if (isConnectionCode(code)) {
    return new DbError("unavailable", `the database cannot be reached (${code})`, {
      next: "Check that PostgreSQL runs and that --database-url is right.",
    });
  }
  if (tlsCode.test(code)) {
    return new DbError("unavailable", `the database's TLS is not taken (${code})`, {
      next: "Check its certificate, the host in its URL, sslmode and sslrootcert; TLS 1.2 is the least.",
    });
  }
  if (!/^[0-9A-Z]{5}$/.test(code))
    return new DbError("internal", `the database work failed (${code || source.name})`);
  const constraint = typeof source.constraint_name === "string" ? source.constraint_name : undefined;
  return serverError(code, constraint);
}

/** As OpenSSL and Node name what is wrong with a connection's TLS, or with who is at its other end. */
const tlsCode =
  /^(ERR_(TLS|SSL)_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_CA|HOSTNAME_MISMATCH|EPROTO$)/;

function serverError(sqlState: string, constraint: string | undefined): DbError {
  const about = { sqlState, ...(constraint === undefined ? {} : { constraint }) };
  const place = constraint === undefined ? "" : ` (${constraint})`;
  if (sqlState === "23505")
    return new DbError("conflict", `the database already has such a row${place}`, about);
  if (sqlState.startsWith("23"))
    return new DbError("constraint", `the database refused a row${place}`, about);
  if (sqlState === "40001" || sqlState === "40P01") {
    return new DbError("serialization", "the database gave way to another transaction", about);
  }
  if (sqlState.startsWith("08") || sqlState.startsWith("57P") || sqlState.startsWith("53")) {
    return new DbError("unavailable", `the database does not serve now (SQLSTATE ${sqlState})`, about);
  }
  if (sqlState.startsWith("28") || sqlState === "3D000") {
    return new DbError("unavailable", `the database refused the connection (SQLSTATE ${sqlState})`, {
      ...about,
      next: "Check the user, the password and the database's name in --database-url.",
    });
  }
  return new DbError("internal", `the database failed (SQLSTATE ${sqlState})`, about);
}

interface ServerSide {
  readonly name: string;
  readonly code?: unknown;
  readonly constraint_name?: unknown;
}

function innermost(thrown: unknown): ServerSide {
  let error = thrown;
  for (let depth = 0; depth < 5 && error instanceof Error && error.cause instanceof Error; depth += 1)
    error = error.cause;
  return error instanceof Error ? (error as ServerSide) : { name: typeof thrown };
}

function isConnectionCode(code: string): boolean {
  return /^(CONNECTION_|CONNECT_TIMEOUT|E(CONN|NOENT|ACCES|TIMEDOUT|PIPE|HOST|NOTFOUND|NET|AI_))/.test(code);
}
