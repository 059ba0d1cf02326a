import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorDetailSchema } from "../gen/oci_node/v1/error_pb.ts";
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
  if (error.code === Code.Unavailable) {
    return {
      message: "the node does not answer",
      code: "unavailable",
      next: "Start it with `oci-node dev`, or check OCI_NODE_URL.",
      exitCode: 1,
    };
  }
  if (error.code === Code.Unauthenticated) {
    return {
      message: error.rawMessage,
      code: "unauthenticated",
      next: "Check OCI_NODE_TOKEN, or start the node again: it writes a new context file.",
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
