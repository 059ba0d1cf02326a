import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorDetailSchema } from "../gen/oci_node/v1/error_pb.ts";
import { isTlsCode } from "../registry/tls-problem.ts";
import { CodedError, messageOf } from "../std/error.ts";
import { printable } from "../std/printable.ts";
import { CliError } from "./context.ts";

const messageLengthMax = 2000;

/** What the command line says about a failure, and what it exits with: 2 for wrong usage, 1 for all else. */
export interface Failure {
  readonly message: string;
  readonly code: string;
  readonly next: string | undefined;
  readonly exitCode: 1 | 2;
}

/** Turns whatever was thrown into what a person can act on. */
export function describeFailure(thrown: unknown): Failure {
  if (thrown instanceof ConnectError) return describeConnectError(thrown);
  if (thrown instanceof CodedError) {
    const usage = thrown instanceof CliError && thrown.code === "usage";
    return { message: thrown.message, code: thrown.code, next: thrown.next, exitCode: usage ? 2 : 1 };
  }
  return { message: messageOf(thrown), code: "internal", next: undefined, exitCode: 1 };
}

export function printFailure(thrown: unknown, json: boolean): number {
  const failure = printableFailure(describeFailure(thrown));
  if (json) {
    const { message, code, next } = failure;
    process.stderr.write(`${JSON.stringify({ error: { code, message, next: next ?? null } })}\n`);
  } else {
    process.stderr.write(`oci-node: ${failure.message}\n`);
    if (failure.next !== undefined) process.stderr.write(`  ${failure.next}\n`);
  }
  return failure.exitCode;
}

/** Whoever chose a name in a message must not steer the terminal by it. */
function printableFailure({ message, next, ...rest }: Failure): Failure {
  return {
    ...rest,
    message: printable(message, messageLengthMax),
    next: next === undefined ? undefined : printable(next, messageLengthMax),
  };
}

function describeConnectError(error: ConnectError): Failure {
  const detail = error.findDetails(ErrorDetailSchema)[0];
  if (detail !== undefined) {
    return { message: error.rawMessage, code: detail.code, next: detail.next || undefined, exitCode: 1 };
  }
  const tlsCode = tlsCodeOf(error);
  if (tlsCode !== undefined) return describeTlsFailure(tlsCode, error.rawMessage);
  if (error.code === Code.Unavailable) {
    return {
      message: "the node does not answer",
      code: "unavailable",
      next: "Start it with `oci-node dev`, or check OCI_NODE_URL.",
      exitCode: 1,
    };
  }
  if (error.code === Code.Unimplemented) {
    return {
      message: "the node knows nothing of this: it is of an earlier version, or no oci-node",
      code: "unimplemented",
      next: "Upgrade the node, or check OCI_NODE_URL.",
      exitCode: 1,
    };
  }
  if (error.code === Code.Unauthenticated) {
    return {
      message: error.rawMessage,
      code: "unauthenticated",
      next: process.env["OCI_NODE_TOKEN"]
        ? "Check OCI_NODE_TOKEN. An owner or an administrator makes another: `oci-node token create`."
        : "Start the node again: it writes a new context file.",
      exitCode: 1,
    };
  }
  if (error.code === Code.ResourceExhausted) {
    return {
      message: error.rawMessage,
      code: "too_large",
      next: "No credential, reference or command is that large: check what was given.",
      exitCode: 1,
    };
  }
  return { message: error.rawMessage, code: Code[error.code].toLowerCase(), next: undefined, exitCode: 1 };
}

/** Why there is no secure connection to the gateway, by the platform's code. */
function tlsCodeOf(error: Error): string | undefined {
  let cause: unknown = error;
  for (let depth = 0; depth < 5 && cause instanceof Error; depth += 1) {
    const { code } = cause as { readonly code?: unknown };
    if (typeof code === "string" && isTlsCode(code)) return code;
    cause = cause.cause;
  }
  return undefined;
}

function describeTlsFailure(code: string, message: string): Failure {
  const name = /ALTNAME|HOSTNAME/.test(code);
  const authority = /SELF_SIGNED|UNABLE_TO_/.test(code);
  const [what, next] = name
    ? [
        "the node's certificate is for another host",
        "Call it by a name in its certificate with OCI_NODE_URL.",
      ]
    : authority
      ? [
          "the node's certificate is from an authority that this machine does not know",
          "Set OCI_NODE_CA_FILE to a PEM file with that authority's certificate.",
        ]
      : ["the secure connection to the node failed", "Check the node's certificate, and OCI_NODE_URL."];
  return { message: `${what} (${name ? message : code})`, code: "tls", next, exitCode: 1 };
}
