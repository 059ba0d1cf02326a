import { describe, expect, test } from "bun:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorDetailSchema } from "../gen/oci_node/v1/error_pb.ts";
import { RegistryError } from "../registry/error.ts";
import { SecretError } from "../secret/error.ts";
import { CodedError } from "../std/error.ts";
import { toConnectError } from "./error.ts";

const where = { registry: "r.example", repository: "team/app" };

describe("a caller", () => {
  test("is told an error of ours with its code and the next step", () => {
    const error = toConnectError(
      new RegistryError("unauthorized", "r.example refuses the credential", where, { next: "Check it." }),
    );
    expect(error.code).toBe(Code.FailedPrecondition);
    expect(error.rawMessage).toBe("r.example refuses the credential");
    expect(error.findDetails(ErrorDetailSchema)[0]).toMatchObject({
      room: "registry",
      code: "unauthorized",
      next: "Check it.",
    });
  });

  test("is told names that others chose without what steers a terminal, and not without end", () => {
    const error = toConnectError(
      new SecretError("not_found", `no secret \u001b[2J\u202e${"x".repeat(5000)}`, { next: "\0" }),
    );
    expect(error.rawMessage).toStartWith("no secret \\u{1b}[2J\\u{202e}xxx");
    expect(error.rawMessage.length).toBeLessThan(2100);
    expect(error.findDetails(ErrorDetailSchema)[0]?.next).toBe("\\u{0}");
  });

  test("tells what is missing from what is down and what is damaged", () => {
    expect(toConnectError(new SecretError("not_found", "no secret x")).code).toBe(Code.NotFound);
    expect(toConnectError(new RegistryError("unreachable", "down", where)).code).toBe(Code.Unavailable);
    expect(toConnectError(new RegistryError("rate_limited", "slow", where)).code).toBe(
      Code.ResourceExhausted,
    );
    expect(toConnectError(new RegistryError("digest_mismatch", "bad", where)).code).toBe(Code.DataLoss);
  });

  test("is not told the message of an error that is not ours", () => {
    const error = toConnectError(new Error("postgres://user:hunter2@host/db is down"));
    expect(error.code).toBe(Code.Internal);
    expect(error.message).not.toContain("hunter2");
    expect(error.cause).toBeUndefined();
  });

  test("is not told of an error class that is not in the table", () => {
    class Other extends CodedError<"x"> {
      override readonly name = "Other";
    }
    expect(toConnectError(new Other("x", "inner")).rawMessage).toBe("the node failed unexpectedly");
  });

  test("is told what a handler said to Connect itself", () => {
    const error = new ConnectError("no", Code.PermissionDenied);
    expect(toConnectError(error)).toBe(error);
  });
});
