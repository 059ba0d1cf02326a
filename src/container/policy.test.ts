import { expect, test } from "bun:test";
import { ContainerError } from "./error.ts";
import { type ContainerPolicy, checkAllowed } from "./policy.ts";

const policy: ContainerPolicy = {
  hostNetwork: false,
  defaultNetwork: "private",
  hostPaths: ["/data", "/models:ro"],
  publish: ["127.0.0.1:8000-8999", "10.0.0.1:443"],
};

function refusal(
  source: string | undefined,
  address?: string,
  hostPort = 0,
  readOnly = false,
  change: Partial<ContainerPolicy> = {},
): string {
  const volumes = source === undefined ? [] : [{ source, target: "/v", readOnly }];
  const ports =
    address === undefined
      ? []
      : [{ hostAddress: address, hostPort, containerPort: 80, protocol: "tcp" as const }];
  try {
    checkAllowed({ ...policy, ...change }, "private", { ports, volumes });
    return "";
  } catch (error) {
    if (!(error instanceof ContainerError) || error.code !== "not_allowed") throw error;
    return `${error.message}. ${error.next}`;
  }
}

test("allows ports in the workspace's ranges alone, and says which they are", () => {
  for (const [address, hostPort] of [
    ["127.0.0.1", 8000],
    ["127.0.0.1", 8999],
    ["127.0.0.1", 0],
    ["10.0.0.1", 443],
    ["10.0.0.1", 0],
  ] as const)
    expect(refusal(undefined, address, hostPort)).toBe("");
  expect(refusal(undefined, "127.0.0.1", 9000)).toContain("publish 127.0.0.1:9000");
  expect(refusal(undefined, "127.0.0.1", 9000)).toContain("127.0.0.1:8000-8999, 10.0.0.1:443");
  expect(refusal(undefined, "0.0.0.0", 8000)).toContain("publish 0.0.0.0:8000");
  expect(refusal(undefined, "10.0.0.2")).toContain("a port at 10.0.0.2");
  expect(refusal(undefined, "10.0.0.2", 443, false, { publish: ["0.0.0.0:443"] })).toBe("");
  expect(refusal(undefined, "127.0.0.1", 8000, false, { publish: [] })).toContain("may publish none");
});

test("allows directories at and below those of the workspace, by whole parts of the path, and only to be read where so", () => {
  for (const source of ["/data", "/data/", "/data/a/b", "//data//a", "a-volume"])
    expect(refusal(source)).toBe("");
  expect(refusal("/models/a", undefined, 0, true)).toBe("");
  expect(refusal("/models/a")).toContain("may only read /models/a. Add :ro");
  for (const source of ["/", "/database", "/dat", "/etc"])
    expect(refusal(source)).toContain("It may have /data, /models:ro");
  expect(refusal("/etc", undefined, 0, true, { hostPaths: [] })).toContain("needs no leave");
  expect(refusal("/etc", undefined, 0, true, { hostPaths: ["/"] })).toBe("");
});

test("allows the host's network only where the operator did", () => {
  const none = { ports: [], volumes: [] };
  expect(() => checkAllowed(policy, "host", none)).toThrow(
    "does not allow this workspace the host's network",
  );
  checkAllowed({ ...policy, hostNetwork: true }, "host", none);
  checkAllowed(policy, "none", none);
});
